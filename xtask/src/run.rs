//! Runs other programs: in the terminal, or out of sight with their output in a log file.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::workspace::cargo;

/// How often a process that we wait for is looked at.
pub const POLL: Duration = Duration::from_millis(50);

/// A command line: what to run, where, with which additions to the environment.
///
/// Its `Display` is a line for a POSIX shell that does the same.
#[derive(Clone, Debug)]
pub struct Line {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    /// Directories searched for programs before those of our own `PATH`.
    path: Vec<PathBuf>,
    dir: Option<PathBuf>,
}

impl Line {
    /// A line that runs `program` with no arguments in the current directory.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().into(),
            args: Vec::new(),
            env: Vec::new(),
            path: Vec::new(),
            dir: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().into());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().into()));
        self
    }

    /// Adds the words of `words`, split at spaces.
    #[must_use]
    pub fn words(self, words: &str) -> Self {
        self.args(words.split_whitespace())
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().into()));
        self
    }

    /// Puts `dirs` in front of `PATH`, for the programs that look for each other there.
    #[must_use]
    pub fn path(mut self, dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        self.path.extend(dirs);
        self
    }

    /// Runs in `dir`.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().into());
        self
    }

    /// The same line at the lowest scheduling priority that still makes progress, where the
    /// machine has `nice`.
    fn niced(&self) -> Self {
        if find_in_path("nice").is_none() {
            return self.clone();
        }
        let mut niced = self.clone();
        niced.program = "nice".into();
        niced.args = [
            OsString::from("-n"),
            "10".into(),
            real_program(&self.program),
        ]
        .into();
        niced.args.extend(self.args.iter().cloned());
        niced
    }

    /// As the standard library wants it; nothing is spawned.
    pub fn command(&self) -> Command {
        let mut command = Command::new(real_program(&self.program));
        command.args(&self.args);
        for (name, value) in &self.env {
            command.env(name, value);
        }
        if !self.path.is_empty() {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let dirs = self
                .path
                .iter()
                .cloned()
                .chain(std::env::split_paths(&path));
            // Only a directory with a `:` in its name cannot be joined; then what is on our own
            // PATH has to do.
            command.env("PATH", std::env::join_paths(dirs).unwrap_or(path.clone()));
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    /// Runs in the terminal and waits.
    ///
    /// # Errors
    /// If the program cannot be started, or ends with another status than 0.
    pub fn run(&self) -> Result<()> {
        let status = self
            .command()
            .status()
            .with_context(|| self.cannot_start())?;
        self.check(status)
    }

    /// Runs in the terminal and waits, and shows each line of its standard output to `watch`
    /// after printing it.
    ///
    /// # Errors
    /// As [`Line::run`]; also if the output cannot be read or printed.
    pub fn run_watched(&self, mut watch: impl FnMut(&str)) -> Result<()> {
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| self.cannot_start())?;
        let stdout = child
            .stdout
            .take()
            .expect("standard output was asked to be a pipe");
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while stdout
            .read_until(b'\n', &mut line)
            .context("cannot read the output")?
            > 0
        {
            io::stdout()
                .write_all(&line)
                .context("cannot print the output")?;
            watch(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
        self.check(child.wait()?)
    }

    /// Runs out of sight and waits, all output in `log`.
    ///
    /// # Errors
    /// As [`Line::run`]; also if `log` cannot be shared.
    pub fn run_logged(&self, log: &File) -> Result<()> {
        let status = self
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .status()
            .with_context(|| self.cannot_start())?;
        self.check(status)
    }

    /// Runs out of sight; standard output, trimmed, if the program is there and succeeds.
    pub fn output(&self) -> Option<String> {
        let output = self.command().stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    fn cannot_start(&self) -> String {
        format!("cannot start {}", self.program.to_string_lossy())
    }

    fn check(&self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            bail!("{status}: {self}");
        }
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(dir) = &self.dir {
            write!(f, "cd {} && ", quote(dir.as_os_str()))?;
        }
        for (name, value) in &self.env {
            write!(f, "{}={} ", name.to_string_lossy(), quote(value))?;
        }
        if !self.path.is_empty() {
            self.path.iter().try_for_each(|dir| {
                let before = if *dir == self.path[0] { "PATH=" } else { "" };
                write!(f, "{before}{}:", quote(dir.as_os_str()))
            })?;
            write!(f, "$PATH ")?;
        }
        write!(f, "{}", quote(&self.program))?;
        self.args
            .iter()
            .try_for_each(|arg| write!(f, " {}", quote(arg)))
    }
}

fn real_program(program: &OsStr) -> OsString {
    if program == "cargo" {
        cargo()
    } else {
        program.into()
    }
}

/// One word of a shell line, in single quotes if it needs any.
fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The program called `name` in the directories of `PATH`.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Where a longer piece of work shows what it does.
#[derive(Clone)]
pub enum Runner {
    /// In the terminal.
    Foreground,
    /// Out of sight, at low priority, the output in a log file; can be cancelled.
    Background(Arc<Background>),
}

impl Runner {
    /// Says what comes next.
    pub fn say(&self, text: &str) {
        match self {
            Self::Foreground => println!("{text}"),
            Self::Background(background) => background.say(text),
        }
    }

    /// Runs `line` and waits.
    ///
    /// # Errors
    /// If the program cannot be started, ends with another status than 0, or is cancelled.
    pub fn run(&self, line: &Line) -> Result<()> {
        self.say(&format!("$ {line}"));
        match self {
            Self::Foreground => line.run(),
            Self::Background(background) => background.run(line),
        }
    }
}

/// Work whose programs write to a log file, and which can be cancelled from another thread.
pub struct Background {
    log: File,
    current: Mutex<Current>,
}

enum Current {
    Nothing,
    Running(Child),
    Cancelled,
}

impl Background {
    /// Writes to `log`.
    pub fn new(log: File) -> Self {
        Self {
            log,
            current: Mutex::new(Current::Nothing),
        }
    }

    fn say(&self, text: &str) {
        // A log that cannot be written is no reason to stop the work that it reports.
        let _ = writeln!(&self.log, "{text}");
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, line: &Line) -> Result<()> {
        {
            let mut current = self.current();
            if matches!(*current, Current::Cancelled) {
                bail!("cancelled");
            }
            // A process group of its own: out of reach of the terminal's ctrl-c, and `cancel`
            // can end the program together with all that it started.
            let child = line
                .niced()
                .command()
                .stdin(Stdio::null())
                .stdout(self.log.try_clone()?)
                .stderr(self.log.try_clone()?)
                .process_group(0)
                .spawn()
                .with_context(|| line.cannot_start())?;
            *current = Current::Running(child);
        }
        loop {
            let mut current = self.current();
            let Current::Running(child) = &mut *current else {
                bail!("cancelled")
            };
            if let Some(status) = child.try_wait()? {
                *current = Current::Nothing;
                drop(current);
                return line.check(status);
            }
            drop(current);
            thread::sleep(POLL);
        }
    }

    /// Ends what runs, and refuses to run anything more.
    pub fn cancel(&self) {
        let previous = std::mem::replace(&mut *self.current(), Current::Cancelled);
        if let Current::Running(mut child) = previous {
            ask_to_end(&mut child);
            let deadline = Instant::now() + Duration::from_secs(3);
            end_unless(&mut child, || Instant::now() >= deadline);
        }
    }
}

/// Asks the process group that `child` leads to end, unless `child` has ended: then its id may
/// belong to another process by now. Returns how it has ended, if it has.
pub fn ask_to_end(child: &mut Child) -> Option<ExitStatus> {
    let ended = child.try_wait().ok().flatten();
    if ended.is_none() {
        let _ = killpg(group_of(child), Signal::SIGTERM);
    }
    ended
}

/// Waits until `child` has ended, and kills the process group that it leads once that has taken
/// `too_long`.
pub fn end_unless(child: &mut Child, too_long: impl Fn() -> bool) -> Option<ExitStatus> {
    while let Ok(None) = child.try_wait() {
        if too_long() {
            let _ = killpg(group_of(child), Signal::SIGKILL);
            break;
        }
        thread::sleep(POLL);
    }
    child.wait().ok()
}

fn group_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids fit an i32 on Unix"))
}

/// A duration for people: `840 ms`, `12.3 s`, `4 min 38 s`.
pub fn show_duration(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::{Background, Line, Runner, show_duration};

    #[test]
    fn a_line_reads_as_a_shell_would_take_it() {
        let line = Line::new("echo")
            .words("-n two")
            .arg("it's")
            .arg("")
            .env("A_B", "c d");
        assert_eq!(line.to_string(), r"A_B='c d' echo -n two 'it'\''s' ''");
        let printed = Line::new("sh").arg("-c").arg(line.to_string()).output();
        assert_eq!(printed.as_deref(), Some("two it's"));
    }

    #[test]
    fn watched_output_arrives_line_by_line_and_failure_is_an_error() {
        let mut lines = Vec::new();
        let line = Line::new("sh").arg("-c").arg("echo one; echo two; exit 3");
        let error = line
            .run_watched(|line| lines.push(line.to_owned()))
            .unwrap_err();
        assert_eq!(lines, ["one", "two"]);
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn cancelling_ends_a_program_and_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let background = Arc::new(Background::new(log));
        let started = dir.path().join("started");
        let script = format!(
            "sleep 60 & echo $! > {0}.new; mv {0}.new {0}; wait",
            started.display()
        );
        let worker = thread::spawn({
            let runner = Runner::Background(Arc::clone(&background));
            move || runner.run(&Line::new("sh").arg("-c").arg(script))
        });
        while !started.exists() {
            assert!(!worker.is_finished(), "the program ended by itself");
            thread::sleep(super::POLL);
        }
        let before = Instant::now();
        background.cancel();
        assert!(worker.join().unwrap().is_err());
        assert!(before.elapsed() < Duration::from_secs(10));
        let grandchild = std::fs::read_to_string(&started).unwrap();
        let state = std::fs::read_to_string(format!("/proc/{}/stat", grandchild.trim()));
        assert!(
            state.is_err() || state.unwrap().contains(") Z "),
            "the grandchild still runs"
        );
        let again = Runner::Background(background).run(&Line::new("true"));
        assert_eq!(again.unwrap_err().to_string(), "cancelled");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(show_duration(Duration::from_millis(840)), "840 ms");
        assert_eq!(show_duration(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(show_duration(Duration::from_secs(278)), "4 min 38 s");
    }
}
