//! One process under test. Its standard error goes to a file; it is killed when it is dropped, and by the
//! kernel when the test's thread ends in any other way.

use crate::search;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{env, io};

/// Lines of a log that a failure shows.
const LAST_WORDS: usize = 15;

/// The binary called `name`.
///
/// # Panics
/// Where it was not built; the message says how to.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let dir = match env::var_os("KVSERVICE_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let test = env::current_exe().expect("a process knows its executable");
            // target/debug/deps/system-0123456789abcdef
            let dir = test.ancestors().nth(2);
            dir.expect("cargo puts tests two directories down")
                .to_owned()
        }
    };
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "there is no {}: build it with `cargo build --bins`, or say with KVSERVICE_BIN_DIR where it is",
        path.display()
    );
    path
}

/// A running process, or one that has ended.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where in the log this start begins.
    log_from: usize,
    status: Option<ExitStatus>,
    /// The test has ended it, or told it to end.
    told: bool,
}

impl Process {
    /// Starts a program with its standard error appended to `NAME.log` in `dir`.
    ///
    /// # Panics
    /// Where that cannot be done.
    #[must_use]
    pub fn start(name: &str, program: &Path, args: &[String], dir: &Path) -> Process {
        let log = dir.join(format!("{name}.log"));
        let stderr = File::options().create(true).append(true).open(&log);
        let stderr = stderr.unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let log_from = fs::metadata(&log).map_or(0, |data| data.len()) as usize;
        let mut command = kept_on_a_leash(program);
        let child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Process {
            name: name.to_owned(),
            child,
            log,
            log_from,
            status: None,
            told: false,
        }
    }

    /// What the test calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the test has ended it, or told it to end.
    #[must_use]
    pub fn was_told(&self) -> bool {
        self.told
    }

    /// What this start of it has logged so far.
    #[must_use]
    pub fn logged(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_from..).unwrap_or_default()).into_owned()
    }

    /// The end of the log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = self.logged();
        let lines: Vec<&str> = log.lines().collect();
        let lines = &lines[lines.len().saturating_sub(LAST_WORDS)..];
        format!("{} says:\n  {}", self.name, lines.join("\n  "))
    }

    /// Waits for a line of its log that holds all of `words`.
    ///
    /// # Panics
    /// Where it ends without one, or none comes in time.
    pub async fn says(&mut self, words: &[&str]) -> String {
        let look = async || {
            let ended = self.ended();
            let log = self.logged();
            // A line that is still being written is not read.
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let line = whole
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)));
            match (line, ended) {
                (Some(line), _) => Some(Ok(line.to_owned())),
                (None, Some(status)) => Some(Err(status)),
                (None, None) => None,
            }
        };
        let found = search(look).await;
        let found =
            found.unwrap_or_else(|| panic!("waited in vain for {words:?}; {}", self.last_words()));
        found.unwrap_or_else(|status| {
            panic!(
                "no {words:?}, but its end with {status}; {}",
                self.last_words()
            )
        })
    }

    /// The address in the line of the log that says `listening for …`.
    ///
    /// # Panics
    /// As [`Process::says`], and where the line names no address.
    pub async fn listens(&mut self, for_whom: &str) -> SocketAddr {
        let line = self
            .says(&[&format!("listening for {for_whom}"), "addr="])
            .await;
        let address = line
            .split("addr=")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        let address = address.and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address in {line:?}"))
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }

    /// Waits for its end, that somebody has told it to come to.
    ///
    /// # Panics
    /// Where it does not end in time.
    pub async fn ends(&mut self) -> ExitStatus {
        self.told = true;
        let status = search(async || self.ended()).await;
        status.unwrap_or_else(|| panic!("it does not end; {}", self.last_words()))
    }

    /// Fails where it has ended and nobody told it to.
    ///
    /// # Panics
    /// Then.
    pub fn assert_not_lost(&mut self) {
        if let Some(status) = self.ended() {
            assert!(
                self.told,
                "{} has ended with {status}; {}",
                self.name,
                self.last_words()
            );
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.told = true;
        // Killing what has ended already is no error.
        let _ = self.child.kill();
        self.status = self.child.wait().ok();
    }

    /// Asks it to stop.
    pub fn terminate(&mut self) {
        self.told = true;
        self.signal(Signal::SIGTERM);
    }

    /// Stops it in its tracks, until [`Process::resume`].
    pub fn pause(&mut self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let pid = i32::try_from(self.child.id()).expect("a process id is small");
            signal::kill(Pid::from_raw(pid), signal)
                .unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
        }
    }

    /// The most memory that it ever had resident, in bytes.
    ///
    /// # Panics
    /// Where it has ended.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    /// The memory that it has resident now, in bytes.
    ///
    /// # Panics
    /// Where it has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    fn memory_bytes(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.unwrap_or_else(|| panic!("no {field} in {path}: {}", self.last_words())) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command that the kernel kills when the thread that starts it ends: the test's own thread, on which
/// its scenario runs.
fn kept_on_a_leash(program: &Path) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--pdeathsig", "KILL", "--"]);
    let works = SETPRIV.get_or_init(|| {
        let mut trial = Command::new("setpriv");
        trial
            .args(["--pdeathsig", "KILL", "--", "true"])
            .stdin(Stdio::null());
        trial.stdout(Stdio::null()).stderr(Stdio::null());
        trial.status().is_ok_and(|status| status.success())
    });
    if *works {
        setpriv.arg(program);
        setpriv
    } else {
        // Elsewhere than on Linux a test that is killed leaves its processes behind.
        Command::new(program)
    }
}

/// A loopback address that is free now, and not one that the system gives to port 0 or to outgoing
/// connections: a server that is started again on it finds it free.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn lasting_address() -> SocketAddr {
    /// Below the ephemeral ports of Linux (32768 and up) and of the BSDs (49152 and up).
    const PORTS: std::ops::Range<u32> = 15_000..32_000;
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_with(HashSet::new);
    let count = PORTS.end - PORTS.start;
    // Test executables that run at the same time start far apart.
    let start = process::id().wrapping_mul(7919) % count;
    for offset in 0..count {
        let port = (PORTS.start + (start + offset) % count) as u16;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let free: io::Result<TcpListener> = TcpListener::bind(address);
        if free.is_ok() && given.insert(port) {
            return address;
        }
    }
    panic!("no port in {PORTS:?} is free")
}
