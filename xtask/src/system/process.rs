//! One server process that we started.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};

use anyhow::{Context, Result};

use crate::run::{Line, ask_to_end, end_unless};

/// A front-end or a back-end, out of reach of the terminal's ctrl-c, so that it ends when it
/// is told to and has time to do so well.
#[derive(Debug)]
pub struct Process {
    /// What to call it: `front-end`, `n1`, `n2` and so on.
    pub name: String,
    /// Where it listens: for clients, or for its neighbours in the chain.
    pub port: u16,
    /// Where its standard error goes.
    pub log: PathBuf,
    /// What starts it again.
    again: Line,
    child: Child,
    told_to_stop: bool,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `line`, its output in a fresh `log`; `again` is the line that starts it later.
    ///
    /// # Errors
    /// If the log cannot be written or the program not be started.
    pub fn start(name: &str, port: u16, line: &Line, again: Line, log: PathBuf) -> Result<Self> {
        fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
        let child = spawn(line, &log)?;
        Ok(Self {
            name: name.to_owned(),
            port,
            log,
            again,
            child,
            told_to_stop: false,
            ended: None,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The shell line that starts it again, in any directory, appending to the same log.
    pub fn start_again(&self) -> String {
        format!("{} 2>> {} &", self.again, Line::new(&self.log))
    }

    /// Kills it, with no chance to say good-bye.
    pub fn kill(&mut self) {
        // Killing what has ended already is no error, and waiting tells how it ended.
        let _ = self.child.kill();
        self.ended = self.child.wait().ok();
    }

    /// Starts it again after it has ended, with the same log.
    ///
    /// # Errors
    /// If the log cannot be written or the program not be started.
    pub fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.again, &self.log)?;
        self.ended = None;
        Ok(())
    }

    /// How it ended, the first time that this is seen; `None` while it runs and ever after.
    pub fn just_ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
            self.ended
        } else {
            None
        }
    }

    /// Tells it to end; it may take its time. Nothing happens if it has ended.
    pub fn tell_to_stop(&mut self) {
        if self.ended.is_none() {
            self.ended = ask_to_end(&mut self.child);
            self.told_to_stop = self.ended.is_none();
        }
    }

    /// Waits for its end, and kills it once that has taken `too_long`.
    pub fn wait_unless(&mut self, too_long: impl Fn() -> bool) {
        if self.ended.is_none() {
            self.ended = end_unless(&mut self.child, too_long);
        }
    }

    /// Whether it was told to stop, and did not end well.
    pub fn had_to_be_killed(&self) -> bool {
        self.told_to_stop && self.ended.is_none_or(|status| !status.success())
    }

    /// The last lines of its log, for a message about its end.
    pub fn last_words(&self) -> String {
        tail(&self.log, 2048).unwrap_or_default()
    }
}

fn spawn(line: &Line, log: &Path) -> Result<Child> {
    // Appending, since the line that starts the process again appends to the same file.
    let file = File::options()
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    line.command()
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {line}"))
}

/// `was killed by signal 9`, `has failed with status 1`.
pub fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(0)) => "has ended".to_owned(),
        (None, code) => format!("has failed with status {}", code.unwrap_or_default()),
    }
}

/// The last whole lines of `file` within `limit` bytes.
pub fn tail(file: &Path, limit: u64) -> Option<String> {
    let mut file = File::open(file).ok()?;
    let length = file.metadata().ok()?.len();
    let skipped = length.saturating_sub(limit);
    file.seek(SeekFrom::Start(skipped)).ok()?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = if skipped == 0 {
        &text
    } else {
        text.split_once('\n')?.1
    };
    Some(whole.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::{Process, how, tail};
    use crate::run::{Line, POLL};

    fn shell(dir: &Path, script: &str) -> Process {
        let line = Line::new("sh").arg("-c").arg(script);
        Process::start("n1", 0, &line, line.clone(), dir.join("log")).unwrap()
    }

    fn wait_for_log(process: &Process, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !process.last_words().contains(text) {
            assert!(
                Instant::now() < deadline,
                "no {text:?} in {:?}",
                process.last_words()
            );
            thread::sleep(POLL);
        }
    }

    #[test]
    fn a_process_is_given_the_time_to_end_well() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap 'echo drained; exit 0' TERM; echo up; while :; do sleep 0.02; done";
        let mut process = shell(dir.path(), script);
        wait_for_log(&process, "up");
        process.tell_to_stop();
        process.wait_unless(|| false);
        assert!(!process.had_to_be_killed());
        assert!(
            process.last_words().ends_with("drained"),
            "{:?}",
            process.last_words()
        );
    }

    #[test]
    fn a_process_that_does_not_end_is_killed_and_counts_as_failed() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell(
            dir.path(),
            "trap '' TERM; echo up; while :; do sleep 0.02; done",
        );
        wait_for_log(&process, "up");
        process.tell_to_stop();
        process.wait_unless(|| true);
        assert!(process.had_to_be_killed());
    }

    #[test]
    fn an_end_is_reported_once_and_the_line_starts_it_again_with_the_same_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell(dir.path(), "echo up >&2; exec sleep 60");
        wait_for_log(&process, "up");
        process.kill();
        assert!(!process.had_to_be_killed(), "that was somebody else");
        process.restart().unwrap();
        wait_for_log(&process, "up\nup");
        assert_eq!(process.just_ended(), None);

        process.child.kill().unwrap();
        let status = loop {
            match process.just_ended() {
                Some(status) => break status,
                None => thread::sleep(POLL),
            }
        };
        assert_eq!(how(status), "was killed by signal 9");
        assert_eq!(process.just_ended(), None);

        // What a user would paste; without the `&`, and with a program that ends.
        let mut process = shell(dir.path(), "echo again >&2");
        process.wait_unless(|| false);
        let again = process.start_again();
        let line = Line::new("sh")
            .arg("-c")
            .arg(again.strip_suffix('&').unwrap())
            .dir("/");
        line.run().unwrap();
        assert_eq!(process.last_words(), "again\nagain");
    }

    #[test]
    fn a_tail_is_made_of_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "first\nsecond\nthird\n").unwrap();
        assert_eq!(tail(&log, 100).as_deref(), Some("first\nsecond\nthird"));
        assert_eq!(tail(&log, 15).as_deref(), Some("second\nthird"));
        assert_eq!(tail(&dir.path().join("none"), 15), None);
    }
}
