//! `kvservice restore`: writes the keys of a dump, under new revisions.
//!
//! A file is read twice: it must be whole before anything is written. A pipe can be read only once, so whether
//! it was whole shows at its end.

use crate::args::Restore;
use crate::output::{Exit, Failure, Progress, to_stderr};
use kvservice_client::{Call, Client, Config, Error, ErrorCode, Op, Reply, Seq};
use kvservice_shared::api::{DumpEnd, DumpLine};
use kvservice_shared::limits::DUMP_LINE_BYTES_MAX;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Keys that are written with one frame, at most.
const BATCH_KEYS_MAX: usize = 256;
/// A batch ends once its keys and values pass this many bytes.
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Batches that are written at one time.
const BATCHES_IN_FLIGHT: usize = 4;
/// A server that cannot take writes is asked again after this, and for so long.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(config: Config, args: &Restore) -> Result<Exit, Failure> {
    let source = Source::open(args.file.as_deref())?;
    let client = Client::connect(config).await?;
    if !args.force {
        refuse_over_data(&client).await?;
    }
    let (to_writer, mut batches) = mpsc::channel(1);
    // Reading may wait for whoever writes into the pipe; the connection must not.
    let reading = tokio::task::spawn_blocking(move || source.send_batches(&to_writer));
    let mut writer = Writer::new(&client);
    while let Some(ops) = batches.recv().await {
        writer.write(ops).await?;
    }
    writer.settle_all().await?;
    let written = writer.written;
    client.close().await;
    let end = reading
        .await
        .map_err(|error| Failure::Usage(format!("the dump could not be read: {error}")))?
        .map_err(|failure| failure.after(written))?;
    if written != end.keys {
        return Err(Failure::Incomplete(format!(
            "{written} keys were written, and the dump holds {}",
            end.keys
        )));
    }
    let revisions = writer.revisions.map_or_else(String::new, |(first, last)| {
        format!(", under revisions {first} to {last}")
    });
    to_stderr(&format!(
        "{written} keys written{revisions}: the dump of revision {} is restored",
        end.revision
    ));
    Ok(Exit::Success)
}

async fn refuse_over_data(client: &Client) -> Result<(), Failure> {
    let any = Op::List {
        prefix: String::new(),
        after: String::new(),
        limit: 1,
    };
    match client.call(any).await? {
        Reply::List { entries, .. } => match entries.first() {
            None => Ok(()),
            Some(entry) => Err(Failure::Usage(format!(
                "the cluster holds data ({:?}, for one): nothing was written\n  with --force the dump's keys \
                 are written all the same, over what they hold; other keys stay",
                entry.key
            ))),
        },
        other => Err(Failure::Usage(format!("{other:?} is no answer to a list"))),
    }
}

/// Where the dump comes from.
enum Source {
    /// A file that was read once, and is whole.
    File(File),
    /// Standard input, or a file that cannot be read twice.
    Pipe(Box<dyn Read + Send>),
}

/// What is wrong with a dump.
enum Wrong {
    /// A line cannot be read, or is none.
    Line(u64, String),
    /// There is no last line, or it counts other lines than there are.
    Incomplete(String),
}

impl Wrong {
    fn after(self, written: u64) -> Failure {
        let stays = match written {
            0 => "nothing was written".to_owned(),
            _ => format!("{written} keys were written before that showed, and stay"),
        };
        match self {
            Wrong::Line(number, why) => {
                Failure::Usage(format!("line {number} of the dump: {why}; {stays}"))
            }
            Wrong::Incomplete(why) => {
                Failure::Incomplete(format!("the dump is incomplete: {why}; {stays}"))
            }
        }
    }
}

impl Source {
    fn open(path: Option<&Path>) -> Result<Source, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Source::Pipe(Box::new(io::stdin())));
        };
        let cannot =
            |error: io::Error| Failure::Usage(format!("cannot read {}: {error}", path.display()));
        let mut file = File::open(path).map_err(cannot)?;
        if !file.metadata().map_err(cannot)?.is_file() {
            return Ok(Source::Pipe(Box::new(file)));
        }
        read_dump(&mut file, |_, _| true).map_err(|wrong| wrong.after(0))?;
        file.rewind().map_err(cannot)?;
        Ok(Source::File(file))
    }

    /// Reads to the end, and hands over what is to be written.
    fn send_batches(self, to_writer: &mpsc::Sender<Vec<Op>>) -> Result<DumpEnd, Wrong> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let take = |key: String, value: kvservice_client::Value| {
            bytes += key.len() + value.0.len();
            batch.push(Op::Set { key, value });
            if batch.len() < BATCH_KEYS_MAX && bytes < BATCH_BYTES_MAX {
                return true;
            }
            bytes = 0;
            to_writer.blocking_send(std::mem::take(&mut batch)).is_ok()
        };
        let end = match self {
            Source::File(file) => read_dump(file, take),
            Source::Pipe(pipe) => read_dump(pipe, take),
        };
        if !batch.is_empty() {
            // A writer that is gone has said why.
            let _ = to_writer.blocking_send(batch);
        }
        end
    }
}

/// Reads a dump; `take` says whether to go on.
fn read_dump(
    from: impl Read,
    mut take: impl FnMut(String, kvservice_client::Value) -> bool,
) -> Result<DumpEnd, Wrong> {
    let mut from = BufReader::with_capacity(256 * 1024, from);
    let mut line = Vec::new();
    let mut keys = 0;
    let mut end: Option<DumpEnd> = None;
    loop {
        let number = keys + 1 + u64::from(end.is_some());
        let wrong = |why: String| Wrong::Line(number, why);
        line.clear();
        let read = (&mut from)
            .take(DUMP_LINE_BYTES_MAX as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| wrong(error.to_string()))?;
        match (read, end) {
            (0, Some(end)) if end.keys == keys => return Ok(end),
            (0, Some(end)) => {
                let why = format!("its end counts {} keys, and there are {keys}", end.keys);
                return Err(Wrong::Incomplete(why));
            }
            (0, None) => {
                let why = format!("it has {keys} keys and no end line");
                return Err(Wrong::Incomplete(why));
            }
            (_, Some(_)) => return Err(wrong("there is more after the end".to_owned())),
            (_, None) => {}
        }
        if read > DUMP_LINE_BYTES_MAX {
            return Err(wrong("it is longer than a line can be".to_owned()));
        }
        // A line that was cut off is no fault of the line's.
        let cut_off = !line.ends_with(b"\n");
        match DumpLine::parse(&line) {
            Ok(DumpLine::Entry(entry)) => {
                keys += 1;
                if !take(entry.key, entry.value) {
                    return Err(wrong("it is not wanted any more".to_owned()));
                }
            }
            Ok(DumpLine::End(found)) => end = Some(found),
            Err(_) if cut_off => {
                let why = format!("it has {keys} keys, and is cut off in line {number}");
                return Err(Wrong::Incomplete(why));
            }
            Err(error) => return Err(wrong(error.to_string())),
        }
    }
}

/// What was sent, and its answers.
type Batch = Vec<(Op, Call)>;

/// Writes batches, a few at one time.
struct Writer<'a> {
    client: &'a Client,
    in_flight: VecDeque<Batch>,
    written: u64,
    /// When a key was written last, or the first was sent.
    written_at: Instant,
    /// The first and the last revision that was written.
    revisions: Option<(Seq, Seq)>,
    progress: Progress,
}

impl<'a> Writer<'a> {
    fn new(client: &'a Client) -> Writer<'a> {
        Writer {
            client,
            in_flight: VecDeque::new(),
            written: 0,
            written_at: Instant::now(),
            revisions: None,
            progress: Progress::new(false),
        }
    }

    async fn write(&mut self, ops: Vec<Op>) -> Result<(), Failure> {
        if self.in_flight.len() >= BATCHES_IN_FLIGHT {
            self.settle().await?;
        }
        let batch = self.submit(ops).await?;
        self.in_flight.push_back(batch);
        Ok(())
    }

    async fn submit(&self, ops: Vec<Op>) -> Result<Batch, Failure> {
        let submitted = self.client.submit_batch(ops.clone()).await;
        let calls = submitted.map_err(|error| self.stopped(&error))?;
        Ok(ops.into_iter().zip(calls).collect())
    }

    async fn settle_all(&mut self) -> Result<(), Failure> {
        while !self.in_flight.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits for the oldest batch, until all of it is written. A set that may have been applied is sent again too:
    /// a dump has each key once, so the second one changes nothing but the revision.
    async fn settle(&mut self) -> Result<(), Failure> {
        let mut batch = self.in_flight.pop_front().unwrap_or_default();
        loop {
            let mut again = Vec::new();
            for (op, call) in batch {
                let answer = call.await;
                let answer = answer.and_then(|response| response.result.map_err(Error::Api));
                match answer {
                    Ok(Reply::Set { revision, .. }) => {
                        let (first, last) = self.revisions.unwrap_or((revision, revision));
                        self.revisions = Some((first.min(revision), last.max(revision)));
                        self.written += 1;
                        self.written_at = Instant::now();
                    }
                    Ok(other) => {
                        return Err(Failure::Usage(format!("{other:?} is no answer to a set")));
                    }
                    Err(error) if is_passing(&error) && self.written_at.elapsed() < PATIENCE => {
                        again.push(op);
                    }
                    Err(error) => return Err(self.stopped(&error)),
                }
            }
            if again.is_empty() {
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            batch = self.submit(again).await?;
        }
        let written = self.written;
        self.progress.show(|| format!("{written} keys written"));
        Ok(())
    }

    fn stopped(&self, error: &Error) -> Failure {
        Failure::Usage(format!(
            "stopped after {} keys: {error}\n  what was written stays; the same dump may be restored again, with \
             --force",
            self.written
        ))
    }
}

/// Whether the same may work later.
fn is_passing(error: &Error) -> bool {
    let Error::Api(error) = error else {
        return false;
    };
    matches!(
        error.code,
        ErrorCode::Busy | ErrorCode::Unavailable | ErrorCode::Timeout
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "{\"key\":\"a\",\"value\":\"1\",\"revision\":1}\n";
    const B: &str = "{\"key\":\"b\",\"value\":{\"base64\":\"/w==\"},\"revision\":2}\n";
    const END: &str = "{\"end\":true,\"revision\":2,\"keys\":2}\n";

    fn read(dump: &str) -> (Vec<String>, Result<DumpEnd, Wrong>) {
        let mut keys = Vec::new();
        let end = read_dump(dump.as_bytes(), |key, _| {
            keys.push(key);
            true
        });
        (keys, end)
    }

    #[test]
    fn a_whole_dump_is_read() {
        let (keys, end) = read(&format!("{A}{B}{END}"));
        assert_eq!(keys, ["a", "b"]);
        assert!(end.is_ok_and(|end| end.keys == 2));
        // An editor may take the last newline.
        let (_, end) = read(format!("{A}{B}{END}").trim_end());
        assert!(end.is_ok());
    }

    #[test]
    fn what_is_cut_off_anywhere_is_incomplete() {
        let whole = format!("{A}{B}{END}");
        for length in 0..whole.len() - 1 {
            let (_, end) = read(&whole[..length]);
            assert!(matches!(end, Err(Wrong::Incomplete(_))), "{length} bytes");
        }
        let (_, end) = read(&format!("{A}{END}"));
        assert!(
            matches!(end, Err(Wrong::Incomplete(_))),
            "a line is missing"
        );
    }

    #[test]
    fn what_is_no_dump_names_its_line() {
        let line = |dump: &str| match read(dump).1 {
            Err(Wrong::Line(number, _)) => number,
            _ => panic!("{dump}"),
        };
        assert_eq!(line("nonsense\n"), 1);
        assert_eq!(line(&format!("{A}nonsense\n{END}")), 2);
        assert_eq!(line(&format!("{A}{B}{END}{A}")), 4);
        assert_eq!(
            line(&format!("{A}{{\"key\":\"b\",\"revision\":1}}\n{END}")),
            2
        );
    }
}
