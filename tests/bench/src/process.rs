//! Processes that we start: on free ports, in a directory of their own, and never left behind.

use crate::interrupt;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a system may take until it serves.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A process, which is killed when this is dropped. Where util-linux's `setpriv` is installed, the kernel kills it too
/// when the thread that started it is gone, however that came: start processes on the main thread.
#[derive(Debug)]
pub struct Process {
    /// What to call it: `front-end`, `n1`, `master`, and so on.
    pub name: String,
    program: PathBuf,
    args: Vec<OsString>,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts it, its output into a file in `dir`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = impl Into<OsString>>,
        dir: &Path,
    ) -> Result<Process> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let log = dir.join(format!("{name}.log"));
        let child = spawn(program, &args, &log)?;
        Ok(Process {
            name: name.to_owned(),
            program: program.to_owned(),
            args,
            log,
            child,
        })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether this is one of its arguments.
    pub fn has_arg(&self, arg: &str) -> bool {
        self.args.iter().any(|own| own == arg)
    }

    /// Kills it, as `kill -9` does, and does not wait for its end.
    pub fn kill_now(&mut self) {
        // With what it forked, which is in its group. Errors say that there is nothing any more.
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), i32::try_from(self.pid())) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Stops it where it is, as a machine that hangs would.
    ///
    /// # Errors
    /// It is gone.
    pub fn pause(&self) -> Result<()> {
        let pid = i32::try_from(self.pid()).context("an id that is none")?;
        kill(Pid::from_raw(pid), Signal::SIGSTOP)
            .with_context(|| format!("cannot pause {}", self.name))
    }

    /// Starts it again with the same arguments, after it was killed or paused.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.end();
        self.child = spawn(&self.program, &self.args, &self.log)?;
        Ok(())
    }

    fn end(&mut self) {
        self.kill_now();
        // Nothing can be done about a process that cannot be waited for.
        let _ = self.child.wait();
    }

    /// An error if it has ended, with the end of what it said.
    ///
    /// # Errors
    /// See above.
    pub fn check(&mut self) -> Result<()> {
        if let Ok(Some(status)) = self.child.try_wait() {
            bail!("{} has ended ({status}): {}", self.name, self.last_words());
        }
        Ok(())
    }

    /// The last lines of its log.
    pub fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.trim_end().lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(program: &Path, args: &[OsString], log: &Path) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = kept_on_a_leash(program);
    command.args(args).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    // Out of reach of the terminal's ctrl-c: we end it ourselves.
    command.process_group(0);
    command
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

fn kept_on_a_leash(program: &Path) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let leash = || {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command
    };
    let works = SETPRIV.get_or_init(|| {
        let mut trial = leash();
        trial.arg("true").stdin(Stdio::null());
        trial.stdout(Stdio::null()).stderr(Stdio::null());
        trial.status().is_ok_and(|status| status.success())
    });
    if *works {
        let mut command = leash();
        command.arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Waits until something is so.
///
/// # Errors
/// A process ended meanwhile, it took too long, or we were told to stop.
pub fn wait_until(
    what: &str,
    processes: &mut [Process],
    mut is_so: impl FnMut() -> bool,
) -> Result<()> {
    let deadline = Instant::now() + START_PATIENCE;
    while !is_so() {
        interrupt::check()?;
        processes.iter_mut().try_for_each(Process::check)?;
        if Instant::now() >= deadline {
            let said: Vec<_> = processes
                .iter()
                .map(|process| format!("{}: {}", process.name, process.last_words()))
                .collect();
            bail!(
                "{what}: not so after {} s\n{}",
                START_PATIENCE.as_secs(),
                said.join("\n")
            );
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// A directory that goes with everything in it when this is dropped.
#[derive(Debug)]
pub struct WorkDir(PathBuf);

impl WorkDir {
    /// Makes it in `parent`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(parent: &Path, name: &str) -> Result<WorkDir> {
        let dir = parent.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // Processes are told of it, and run elsewhere.
        let dir = dir.canonicalize().context("a directory just made")?;
        Ok(WorkDir(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// An address of loopback that is free now, and not one that the kernel gives to outgoing connections: a server that is
/// started again on it finds it free.
///
/// # Errors
/// There is none.
pub fn free_address() -> Result<SocketAddr> {
    /// Below the ephemeral ports of Linux.
    const PORTS: std::ops::Range<u32> = 20_000..31_000;
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_with(HashSet::new);
    let count = PORTS.end - PORTS.start;
    // Two runs at once start far apart.
    let start = std::process::id().wrapping_mul(7919) % count;
    for offset in 0..count {
        let port = u16::try_from(PORTS.start + (start + offset) % count)?;
        // Redis Cluster's habit of a second port does not matter here: nobody runs one.
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() && given.insert(port) {
            return Ok(address);
        }
    }
    bail!("no port from {} to {} is free", PORTS.start, PORTS.end)
}

/// Where a program is, of those on `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_when_it_is_dropped_even_when_paused() {
        let dir = tempfile::tempdir().unwrap();
        let sleep = on_path("sleep").unwrap();
        let mut process = Process::start("sleeper", &sleep, ["60"], dir.path()).unwrap();
        process.check().unwrap();
        process.pause().unwrap();
        process.restart().unwrap();
        let pid = process.pid();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn the_end_of_a_process_is_told_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let shell = on_path("sh").unwrap();
        let args = ["-c", "echo I refuse; exit 3"];
        let process = Process::start("refuser", &shell, args, dir.path()).unwrap();
        let error = wait_until("never", &mut [process], || false).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("I refuse") && error.contains("status: 3"),
            "{error}"
        );
    }

    #[test]
    fn addresses_are_given_once() {
        assert_ne!(free_address().unwrap(), free_address().unwrap());
    }

    #[test]
    fn a_work_directory_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let dir = WorkDir::new(parent.path(), "x").unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), "c").unwrap();
        drop(dir);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
