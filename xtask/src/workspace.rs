//! Where things are: the checkout, cargo's target directory, the binaries, the lock file.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

/// Which of cargo's profiles a binary was built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `target/debug`: optimised a little, with debug assertions; what the tests run.
    Debug,
    /// `target/release`: what `up` runs.
    Release,
}

impl Profile {
    fn dir(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// The checkout this xtask was built from.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The directory of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target directory, wherever the environment or cargo's configuration puts it.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks cargo where the workspace and its target directory are.
    ///
    /// # Errors
    /// If cargo cannot be run, or cannot read the workspace.
    pub fn find() -> Result<Self> {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(cargo())
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(xtask)
            .output()
            .context("cannot run cargo")?;
        if !output.status.success() {
            bail!(
                "cargo metadata failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?;
        let path = |field: &str| {
            let path = metadata[field].as_str();
            path.map(PathBuf::from)
                .ok_or_else(|| anyhow!("cargo metadata has no {field}"))
        };
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
        })
    }

    /// The directory that holds the binaries of `profile`.
    pub fn bin_dir(&self, profile: Profile) -> PathBuf {
        self.target.join(profile.dir())
    }

    /// The binary called `name`, built with `profile`; it need not exist yet.
    pub fn bin(&self, profile: Profile, name: &str) -> PathBuf {
        self.bin_dir(profile).join(name)
    }

    /// Where a front-end of `profile` looks for the page: a `web` folder beside its binary.
    pub fn web_dir(&self, profile: Profile) -> PathBuf {
        self.bin_dir(profile).join("web")
    }

    /// Where tools are installed that this machine lacks; nothing outside `target` is touched.
    pub fn tools_dir(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The version of `package` in `Cargo.lock`.
    ///
    /// # Errors
    /// If the file cannot be read or does not name the package.
    pub fn locked_version(&self, package: &str) -> Result<String> {
        let path = self.root.join("Cargo.lock");
        let lock = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        version_in_lock(&lock, package)
            .ok_or_else(|| anyhow!("{} names no {package}", path.display()))
    }

    /// `path` as a person wants to read it: relative where it lies under the current directory.
    pub fn show(&self, path: &Path) -> String {
        let here = env::current_dir().unwrap_or_default();
        path.strip_prefix(&here)
            .unwrap_or(path)
            .display()
            .to_string()
    }
}

/// The cargo that runs us, so that a toolchain chosen with `cargo +…` is kept.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn version_in_lock(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.next()?;
    let version = lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')?;
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::version_in_lock;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"wasm-bindgen-macro\"\n\
        version = \"0.2.1\"\n\n[[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.130\"\n";

    #[test]
    fn lock_version_is_of_the_package_named_exactly() {
        assert_eq!(
            version_in_lock(LOCK, "wasm-bindgen").as_deref(),
            Some("0.2.130")
        );
        assert_eq!(
            version_in_lock(LOCK, "wasm-bindgen-macro").as_deref(),
            Some("0.2.1")
        );
        assert_eq!(version_in_lock(LOCK, "wasm"), None);
    }
}
