//! Builds the page that the front-end serves at `/`, and puts it where the front-end looks.
//!
//! trunk compiles the Yew client to wasm and writes the page. Every file is then compressed
//! once, as hard as it goes, so that the front-end never compresses anything itself: beside
//! `x.wasm` lie `x.wasm.br` and `x.wasm.gz`. The finished folder appears under its final name in
//! one step, since a front-end may be serving from there.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::run::{Line, Runner};
use crate::tools::Toolbox;
use crate::workspace::{Profile, Workspace};

/// What a browser loads, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sizes(Vec<Size>);

#[derive(Debug, PartialEq, Eq)]
struct Size {
    file: String,
    plain: u64,
    gzip: Option<u64>,
    brotli: Option<u64>,
}

/// Builds the page and puts it beside the binaries of both profiles.
///
/// # Errors
/// If a tool is missing and cannot be installed, the page does not compile, or a file cannot be
/// written.
pub fn build(workspace: &Workspace, runner: &Runner) -> Result<Sizes> {
    let web = workspace.target.join("web-build");
    fs::create_dir_all(&web).with_context(|| format!("cannot make {}", web.display()))?;
    // Two builds at once would write over each other: `up` builds in the background, and
    // anyone may call `web` meanwhile.
    let lock = File::create(web.join("lock")).context("cannot make the build's lock file")?;
    lock.lock().context("cannot lock the page's build")?;

    let started = SystemTime::now();
    let dist = web.join("dist");
    remove(&dist)?;
    compile(workspace, runner, &dist)?;
    let sizes = compress(&dist)?;
    for profile in [Profile::Release, Profile::Debug] {
        install(&dist, &workspace.web_dir(profile))?;
    }
    let stamp = File::create(stamp(workspace)).context("cannot write the build's time")?;
    stamp
        .set_modified(started)
        .context("cannot write the build's time")?;
    Ok(sizes)
}

/// Whether the page is there and no source file is younger than it.
pub fn is_current(workspace: &Workspace) -> bool {
    let built = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let Some(built) = built(&stamp(workspace)) else {
        return false;
    };
    let sources = ["web-client", "shared", "Cargo.toml", "Cargo.lock"];
    workspace
        .web_dir(Profile::Release)
        .join("index.html")
        .is_file()
        && sources
            .iter()
            .all(|path| youngest(&workspace.root.join(path)).is_some_and(|changed| changed < built))
}

fn stamp(workspace: &Workspace) -> PathBuf {
    workspace.target.join("web-build/built")
}

/// When the youngest file under `path` was changed; `None` if anything cannot be read.
fn youngest(path: &Path) -> Option<SystemTime> {
    let data = fs::metadata(path).ok()?;
    if !data.is_dir() {
        return data.modified().ok();
    }
    let mut latest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(path).ok()? {
        let entry = entry.ok()?;
        // `dist` is where a plain `trunk build` or `trunk serve` writes.
        if entry.file_name() != "dist" {
            latest = latest.max(youngest(&entry.path())?);
        }
    }
    Some(latest)
}

fn compile(workspace: &Workspace, runner: &Runner, dist: &Path) -> Result<()> {
    let tools = Toolbox::new(workspace, runner);
    tools.wasm_target()?;
    let trunk = tools.trunk()?;
    tools.wasm_bindgen()?;
    let wasm_opt = tools.wasm_opt();
    // Only a release build calls wasm-opt, and it insists on it.
    let mode = match wasm_opt {
        Some(_) => "--release",
        None => "--cargo-profile=web",
    };
    let line = Line::new(trunk)
        .words("build --skip-version-check --dist")
        .arg(dist)
        .arg(mode)
        // trunk takes this one for a flag of its own, and stumbles over its usual value.
        .env("NO_COLOR", "true")
        // And its errors are for people, who know nothing of its insides.
        .env("RUST_BACKTRACE", "0")
        .env("CARGO_TARGET_DIR", &workspace.target)
        .path(tools.path())
        .dir(workspace.root.join("web-client"));
    runner.run(&line).context("the page does not build")
}

/// Writes a brotli and a gzip file beside each file that gets smaller by it.
fn compress(dir: &Path) -> Result<Sizes> {
    let mut sizes = Vec::new();
    for path in files(dir)? {
        let plain = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let keep = |extension: &str, packed: Vec<u8>| -> Result<Option<u64>> {
            if packed.len() >= plain.len() {
                return Ok(None);
            }
            let mut name = path.clone().into_os_string();
            name.push(extension);
            fs::write(&name, &packed)
                .with_context(|| format!("cannot write {}", name.display()))?;
            Ok(Some(packed.len() as u64))
        };
        sizes.push(Size {
            file: path
                .strip_prefix(dir)
                .unwrap_or(&path)
                .display()
                .to_string(),
            plain: plain.len() as u64,
            gzip: keep(".gz", gzip(&plain)?)?,
            brotli: keep(".br", brotli(&plain)?)?,
        });
    }
    Ok(Sizes(sizes))
}

fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain)?;
    encoder.finish()
}

fn brotli(plain: &[u8]) -> io::Result<Vec<u8>> {
    let params = brotli::enc::BrotliEncoderParams {
        quality: 11,
        lgwin: 24,
        size_hint: plain.len(),
        ..Default::default()
    };
    let mut packed = Vec::new();
    brotli::BrotliCompress(&mut &plain[..], &mut packed, &params)?;
    Ok(packed)
}

/// All files under `dir` in order of their paths.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot list {}", dir.display()))?
            .path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Puts a copy of `from` in place of `to`.
fn install(from: &Path, to: &Path) -> Result<()> {
    let (fresh, old) = (to.with_extension("new"), to.with_extension("old"));
    remove(&fresh)?;
    remove(&old)?;
    for path in files(from)? {
        let copy = fresh.join(path.strip_prefix(from).unwrap_or(&path));
        copy.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::copy(&path, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    if to.exists() {
        fs::rename(to, &old).with_context(|| format!("cannot replace {}", to.display()))?;
    }
    fs::rename(&fresh, to).with_context(|| format!("cannot write {}", to.display()))?;
    remove(&old)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

impl Sizes {
    /// What a browser that takes brotli loads in all, in bytes.
    pub fn served(&self) -> u64 {
        self.0
            .iter()
            .map(|size| size.brotli.unwrap_or(size.plain))
            .sum()
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .0
            .iter()
            .map(|size| size.file.len())
            .max()
            .unwrap_or(0)
            .max(5);
        let mut row = |file: &str, plain: &str, gzip: &str, brotli: &str| {
            writeln!(f, "{file:width$}  {plain:>9}  {gzip:>9}  {brotli:>9}")
        };
        row("bytes", "plain", "gzip", "brotli")?;
        let sum = |of: fn(&Size) -> u64| self.0.iter().map(of).sum::<u64>().to_string();
        for Size {
            file,
            plain,
            gzip,
            brotli,
        } in &self.0
        {
            let show = |packed: &Option<u64>| packed.unwrap_or(*plain).to_string();
            row(file, &plain.to_string(), &show(gzip), &show(brotli))?;
        }
        row(
            "total",
            &sum(|size| size.plain),
            &sum(|size| size.gzip.unwrap_or(size.plain)),
            &self.served().to_string(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::{compress, install};

    #[test]
    fn compressed_files_hold_what_the_plain_ones_do() {
        let dir = tempfile::tempdir().unwrap();
        let text = "let key = value;\n".repeat(200);
        fs::create_dir(dir.path().join("snippets")).unwrap();
        fs::write(dir.path().join("snippets/a.js"), &text).unwrap();
        fs::write(dir.path().join("tiny.txt"), "x").unwrap();
        let sizes = compress(dir.path()).unwrap();

        let packed = |name: &str| fs::File::open(dir.path().join(name)).unwrap();
        let mut plain = String::new();
        flate2::read::GzDecoder::new(packed("snippets/a.js.gz"))
            .read_to_string(&mut plain)
            .unwrap();
        assert_eq!(plain, text);
        let mut plain = Vec::new();
        brotli::BrotliDecompress(&mut packed("snippets/a.js.br"), &mut plain).unwrap();
        assert_eq!(plain, text.as_bytes());

        assert!(
            !dir.path().join("tiny.txt.br").exists(),
            "it would have been larger"
        );
        let brotli = packed("snippets/a.js.br").metadata().unwrap().len();
        assert_eq!(sizes.served(), brotli + 1);
    }

    #[test]
    fn installing_leaves_nothing_of_the_page_before() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("dist"), dir.path().join("web"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/a-1.js"), "1").unwrap();
        install(&from, &to).unwrap();
        fs::rename(from.join("sub/a-1.js"), from.join("sub/a-2.js")).unwrap();
        install(&from, &to).unwrap();
        let names = |path| {
            fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
        };
        assert_eq!(names(to.join("sub")).collect::<Vec<_>>(), ["a-2.js"]);
        assert_eq!(names(dir.path().to_owned()).count(), 2);
    }
}
