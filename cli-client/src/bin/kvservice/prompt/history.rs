//! Where the prompt keeps its history.

use std::path::PathBuf;

/// The history file: in the user's state directory (`$XDG_STATE_HOME`, else `~/.local/state`; on
/// Windows `%LOCALAPPDATA%`). `None` where the user has none; the history then ends with the
/// prompt.
pub fn file() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|directory| directory.is_absolute())
    };
    let state = if cfg!(windows) {
        absolute("LOCALAPPDATA")
    } else {
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))
    };
    let directory = state?.join("kvservice");
    // Without its directory the file cannot be written, which the editor ignores.
    let _ = std::fs::create_dir_all(&directory);
    Some(directory.join("history"))
}
