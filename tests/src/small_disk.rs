//! A small disk, which can be filled.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system in memory, where this process may mount one.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

/// Files that take room away, and give it back.
const BALLAST: &str = "ballast";

impl SmallDisk {
    /// A directory of `bytes`; `None` where mounting is not allowed.
    ///
    /// # Panics
    /// Where the directory cannot be made.
    #[must_use]
    pub fn mount(at: PathBuf, bytes: u64) -> Option<SmallDisk> {
        fs::create_dir(&at).expect("the run's directory can be written");
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={bytes}"),
                "kvservice-test",
            ])
            .arg(&at)
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(SmallDisk(at))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes room away until only so many bytes are left.
    pub fn fill_up_to(&self, left: u64) {
        let free = nix::sys::statvfs::statvfs(&self.0)
            .map_or(0, |room| room.blocks_available() * room.fragment_size());
        let bytes = usize::try_from(free.saturating_sub(left)).unwrap_or(0);
        // Where it is full sooner, it is full.
        let file = fs::File::create(self.0.join(BALLAST));
        let _ = file.and_then(|mut file| file.write_all(&vec![0x55; bytes]));
    }

    /// Gives the room back.
    pub fn empty(&self) {
        // Where there was no room for it, it is not there.
        let _ = fs::remove_file(self.0.join(BALLAST));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
