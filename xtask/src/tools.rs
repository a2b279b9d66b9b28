//! The tools that cargo does not bring: found where they are, installed where they are not.
//!
//! A tool that is on `PATH` with a version that will do is used as it is. What is missing is
//! installed into `target/tools`, built from its registry; nothing is changed outside the
//! checkout but rustup's list of targets. What only a system's package manager can install is
//! asked for with the line to run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::{Line, Runner, find_in_path};
use crate::workspace::Workspace;

/// The wasm target's name, as rustup and cargo know it.
pub const WASM: &str = "wasm32-unknown-unknown";

/// The newest trunk that Rust 1.95 compiles.
const TRUNK: &str = "0.21.14";
const WASM_PACK: &str = "0.15.1";
const CARGO_FUZZ: &str = "0.13.2";
/// The first release of wasm-opt that reads what today's Rust writes; older ones fail.
const WASM_OPT_MIN: u32 = 116;
const BINARYEN: &str = "132";

/// Finds tools, and installs those that are missing.
pub struct Toolbox<'a> {
    workspace: &'a Workspace,
    runner: &'a Runner,
}

/// A browser and the program that drives it.
#[derive(Debug)]
pub struct Browser {
    /// Chromium or Chrome.
    pub browser: PathBuf,
    /// The chromedriver of the same version.
    pub driver: PathBuf,
}

impl<'a> Toolbox<'a> {
    /// Installs for `workspace`, showing what it does on `runner`.
    pub fn new(workspace: &'a Workspace, runner: &'a Runner) -> Self {
        Self { workspace, runner }
    }

    /// Where tools are installed here; programs that look for each other need it on `PATH`.
    pub fn path(&self) -> [PathBuf; 2] {
        [self.bin_dir(), self.npm_dir().join("node_modules/.bin")]
    }

    /// cargo's subcommand `name`, which is a component of the toolchain: `fmt` or `clippy`.
    ///
    /// # Errors
    /// If it is missing and rustup cannot add it.
    pub fn cargo_component(&self, name: &str, component: &str) -> Result<()> {
        if Line::new("cargo")
            .args([name, "--version"])
            .output()
            .is_some()
        {
            return Ok(());
        }
        if find_in_path("rustup").is_none() {
            bail!("cargo {name} is missing: install it as you installed Rust");
        }
        let add = Line::new("rustup").words("component add").arg(component);
        self.runner.run(&add.dir(&self.workspace.root))
    }

    /// The standard library for wasm.
    ///
    /// # Errors
    /// If it is missing and rustup cannot add it.
    pub fn wasm_target(&self) -> Result<()> {
        let sysroot = Line::new("rustc")
            .words("--print sysroot")
            .dir(&self.workspace.root);
        let sysroot = sysroot
            .output()
            .context("cannot run rustc --print sysroot")?;
        let std = Path::new(&sysroot)
            .join("lib/rustlib")
            .join(WASM)
            .join("lib");
        if std.is_dir() {
            return Ok(());
        }
        if find_in_path("rustup").is_none() {
            bail!(
                "Rust's standard library for {WASM} is missing: install it as you installed Rust"
            );
        }
        let add = Line::new("rustup")
            .words("target add")
            .arg(WASM)
            .dir(&self.workspace.root);
        self.runner.run(&add)
    }

    /// trunk, which builds the page.
    ///
    /// # Errors
    /// If it is missing and cannot be installed.
    pub fn trunk(&self) -> Result<PathBuf> {
        let fits = |version: &str| version.starts_with("0.21.");
        self.cargo_tool("trunk", "trunk", TRUNK, fits, true)
    }

    /// wasm-bindgen (and its test runner), of exactly the version in `Cargo.lock`: the command
    /// and the library must agree on a format that changes with every release.
    ///
    /// # Errors
    /// If it is missing and cannot be installed.
    pub fn wasm_bindgen(&self) -> Result<PathBuf> {
        let wanted = self.workspace.locked_version("wasm-bindgen")?;
        let fits = |version: &str| version == wanted;
        // Without --locked: the lock file that 0.2.130 was published with does not build.
        self.cargo_tool("wasm-bindgen", "wasm-bindgen-cli", &wanted, fits, false)
    }

    /// wasm-pack, which runs tests in a browser.
    ///
    /// # Errors
    /// If it is missing and cannot be installed.
    pub fn wasm_pack(&self) -> Result<PathBuf> {
        let fits = |version: &str| matches!(numbers(version)[..], [0, minor, ..] if minor >= 13);
        self.cargo_tool("wasm-pack", "wasm-pack", WASM_PACK, fits, true)
    }

    /// cargo-fuzz, which builds and runs the fuzz targets.
    ///
    /// # Errors
    /// If it is missing and cannot be installed.
    pub fn cargo_fuzz(&self) -> Result<PathBuf> {
        let fits = |version: &str| matches!(numbers(version)[..], [0, minor, ..] if minor >= 13);
        self.cargo_tool("cargo-fuzz", "cargo-fuzz", CARGO_FUZZ, fits, true)
    }

    /// Nightly Rust, which alone can count the edges that a run takes.
    ///
    /// # Errors
    /// If it is missing; the message holds the line that installs it.
    pub fn nightly(&self) -> Result<()> {
        let version = Line::new("rustup").words("run nightly rustc --version");
        if version.output().is_some() {
            return Ok(());
        }
        bail!("nightly Rust is not here:\n  rustup toolchain install nightly --profile minimal")
    }

    fn cargo_tool(
        &self,
        name: &str,
        package: &str,
        version: &str,
        fits: impl Fn(&str) -> bool,
        locked: bool,
    ) -> Result<PathBuf> {
        if let Some(file) = self.find(name, |text| fits(version_of(text))) {
            return Ok(file);
        }
        self.runner.say(&format!(
            "{name} {version} is not here: installing it (some minutes)"
        ));
        // Unoptimised, and into one target directory for all tools: quickest by far to compile,
        // and quick enough to run.
        let install = Line::new("cargo")
            .words("install --debug --root")
            .arg(self.workspace.tools_dir())
            .args(locked.then_some("--locked"))
            .args([package, "--version", version])
            .env("CARGO_TARGET_DIR", self.workspace.tools_dir().join("build"))
            .dir(&self.workspace.root);
        self.runner.run(&install)?;
        self.find(name, |text| fits(version_of(text)))
            .with_context(|| format!("{name} was installed, and does not run"))
    }

    /// wasm-opt, where it is on the machine or npm can bring it: the page is smaller with it,
    /// and works without.
    pub fn wasm_opt(&self) -> Option<PathBuf> {
        let fits = |text: &str| {
            numbers(text.trim_start_matches("wasm-opt version "))
                .first()
                .is_some_and(|&version| version >= WASM_OPT_MIN)
        };
        if let Some(file) = self.find("wasm-opt", fits) {
            return Some(file);
        }
        if find_in_path("npm").is_none() {
            self.runner
                .say("neither wasm-opt nor npm is here: the page will be a little larger");
            return None;
        }
        let install = Line::new("npm")
            .words("install --no-save --no-audit --no-fund --loglevel=error --prefix")
            .arg(self.npm_dir())
            .arg(format!("binaryen@{BINARYEN}"));
        if let Err(error) = self.runner.run(&install) {
            self.runner.say(&format!(
                "no wasm-opt, the page will be a little larger: {error:#}"
            ));
            return None;
        }
        self.find("wasm-opt", fits)
    }

    /// A browser that tests can drive.
    ///
    /// # Errors
    /// If there is none; the message holds the line that installs it.
    pub fn browser(&self) -> Result<Browser> {
        let first = |names: &[&str]| names.iter().find_map(|name| find_in_path(name));
        let browser = first(&["chromium", "chromium-browser", "google-chrome", "chrome"]);
        match (browser, first(&["chromedriver"])) {
            (Some(browser), Some(driver)) => Ok(Browser { browser, driver }),
            (browser, _) => {
                let lacking = if browser.is_none() {
                    "Chromium"
                } else {
                    "chromedriver"
                };
                bail!(
                    "{lacking} is not here. On Debian and Ubuntu:\n  \
                     sudo apt-get install --yes chromium chromium-driver"
                )
            }
        }
    }

    /// The Python of a virtual environment that has the `websockets` library.
    ///
    /// # Errors
    /// If there is no Python 3 or the library cannot be installed.
    pub fn python(&self) -> Result<PathBuf> {
        let venv = self.workspace.tools_dir().join("python");
        let python = venv.join("bin/python");
        let ready = |python: &Path| {
            Line::new(python)
                .arg("-c")
                .arg("import websockets.sync.client")
                .output()
                .is_some()
        };
        if ready(&python) {
            return Ok(python);
        }
        if find_in_path("python3").is_none() {
            bail!(
                "python3 is not here. On Debian and Ubuntu:\n  \
                 sudo apt-get install --yes python3 python3-venv"
            );
        }
        self.runner
            .run(&Line::new("python3").words("-m venv --clear").arg(&venv))
            .context(
                "cannot make a virtual environment. On Debian and Ubuntu:\n  \
             sudo apt-get install --yes python3-venv",
            )?;
        let pip = Line::new(&python).words("-m pip install --quiet --disable-pip-version-check");
        self.runner.run(&pip.arg("websockets"))?;
        Ok(python)
    }

    /// The first `name` among the tools installed here and on `PATH` whose `--version` fits.
    fn find(&self, name: &str, fits: impl Fn(&str) -> bool) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        self.path()
            .into_iter()
            .chain(std::env::split_paths(&path))
            .map(|dir| dir.join(name))
            .filter(|file| file.is_file())
            .find(|file| {
                Line::new(file)
                    .arg("--version")
                    .output()
                    .is_some_and(|text| fits(&text))
            })
    }

    fn bin_dir(&self) -> PathBuf {
        self.workspace.tools_dir().join("bin")
    }

    fn npm_dir(&self) -> PathBuf {
        self.workspace.tools_dir().join("npm")
    }
}

/// `0.21.14` of `trunk 0.21.14`.
fn version_of(text: &str) -> &str {
    text.split_whitespace().nth(1).unwrap_or_default()
}

/// The whole numbers that `version` starts with, between dots or underscores.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split(['.', '_', ' ', '-', '(', ')'])
        .map_while(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{numbers, version_of};

    #[test]
    fn versions_are_read_from_what_tools_print() {
        assert_eq!(version_of("trunk 0.21.14"), "0.21.14");
        assert_eq!(version_of("wasm-bindgen 0.2.130\n"), "0.2.130");
        assert_eq!(numbers("0.15.1"), [0, 15, 1]);
        assert_eq!(numbers("108 (version_108)"), [108]);
        assert!(numbers("unknown").is_empty());
    }
}
