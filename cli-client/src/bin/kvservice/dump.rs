//! `kvservice dump`: all keys at one point, as JSON lines, to standard output or a file.
//!
//! A dump is whole only with its last line. A file gets its name once the dump in it is whole and on disk;
//! standard output cannot be taken back, so an exit status says it.

use crate::output::{Exit, Failure, Progress, to_stderr};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use kvservice_client::{Error, ServerAddress};
use kvservice_shared::api::{DumpEnd, DumpLine};
use kvservice_shared::limits::DUMP_LINE_BYTES_MAX;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that sends nothing for so long in the middle of a dump is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// As much of a refusal as is read.
const REFUSAL_BYTES_MAX: usize = 4 * 1024;

pub async fn run(
    server: &ServerAddress,
    connect_timeout: Duration,
    file: Option<&Path>,
) -> Result<Exit, Failure> {
    let reading = async {
        let body = ask(server, connect_timeout).await?;
        match file {
            Some(path) if path != Path::new("-") => to_file(path, body).await,
            _ => copy(body, &mut io::stdout().lock(), Progress::new(true)).await,
        }
    };
    let end = tokio::select! {
        end = reading => end?,
        // The unfinished file goes with the future.
        _ = tokio::signal::ctrl_c() => return Err(Failure::Incomplete("interrupted".to_owned())),
    };
    to_stderr(&format!("{} keys, at revision {}", end.keys, end.revision));
    Ok(Exit::Success)
}

/// Sends the request; gives the body of a dump that has begun.
async fn ask(server: &ServerAddress, connect_timeout: Duration) -> Result<Incoming, Failure> {
    let unreachable = |reason: String| Failure::Request(Error::Connect(reason));
    let connect = TcpStream::connect(server.host_port());
    let tcp = match timeout(connect_timeout, connect).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(unreachable("connection refused".to_owned()));
        }
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable("no connection in time".to_owned())),
    };
    let broken = |error: hyper::Error| unreachable(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
        .await
        .map_err(broken)?;
    // What breaks it shows in the answer or its body.
    tokio::spawn(connection);
    let request = Request::get(server.dump_path())
        .header(header::HOST, server.host_port())
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let response = timeout(SILENCE_MAX, sender.send_request(request))
        .await
        .map_err(|_| unreachable("the server does not answer".to_owned()))?
        .map_err(broken)?;
    if response.status() == StatusCode::OK {
        return Ok(response.into_body());
    }
    Err(refused(response).await)
}

async fn refused(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let mut body = response.into_body();
    let mut text = Vec::new();
    while text.len() < REFUSAL_BYTES_MAX
        && let Ok(Some(Ok(frame))) = timeout(SILENCE_MAX, body.frame()).await
    {
        text.extend_from_slice(frame.data_ref().map_or(&[], |bytes| bytes));
    }
    let reason = String::from_utf8_lossy(&text);
    let reason = reason.lines().next().unwrap_or_default();
    let known = matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::FORBIDDEN
    );
    Failure::Usage(if known && !reason.is_empty() {
        format!("no dump: {reason}")
    } else {
        format!("no dump: the server answers {status}; does it know of dumps?")
    })
}

/// Writes the dump as it comes, and checks it.
async fn copy(
    mut body: Incoming,
    out: &mut impl Write,
    mut progress: Progress,
) -> Result<DumpEnd, Failure> {
    let mut check = Check::default();
    loop {
        let frame = match timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(check.cut_off("the server broke it off")),
            Err(_) => return Err(check.cut_off("the server fell silent")),
        };
        let Ok(bytes): Result<Bytes, _> = frame.into_data() else {
            continue;
        };
        check.push(&bytes)?;
        out.write_all(&bytes)?;
        progress.show(|| format!("{} keys", check.lines));
    }
    out.flush()?;
    check.end()
}

/// Looks at a dump as it passes: its lines are counted, and the last one is kept.
#[derive(Default)]
struct Check {
    lines: u64,
    /// The last line, whole or not.
    line: Vec<u8>,
}

impl Check {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.ends_with(b"\n") {
                self.line.clear();
            }
            if self.line.len() + piece.len() > DUMP_LINE_BYTES_MAX {
                return Err(self.cut_off("what the server sends is no dump"));
            }
            self.line.extend_from_slice(piece);
            self.lines += u64::from(piece.ends_with(b"\n"));
        }
        Ok(())
    }

    fn end(&self) -> Result<DumpEnd, Failure> {
        match DumpLine::parse(&self.line) {
            Ok(DumpLine::End(end)) if self.line.ends_with(b"\n") && end.keys + 1 == self.lines => {
                Ok(end)
            }
            Ok(DumpLine::End(end)) => {
                Err(self.cut_off(&format!("its end speaks of {} keys", end.keys)))
            }
            _ => Err(self.cut_off("its end is missing")),
        }
    }

    fn cut_off(&self, why: &str) -> Failure {
        Failure::Incomplete(format!(
            "the dump is incomplete, {} lines: {why}; the chain may have changed under it: try again",
            self.lines
        ))
    }
}

async fn to_file(path: &Path, body: Incoming) -> Result<DumpEnd, Failure> {
    let cannot =
        |error: io::Error| Failure::Usage(format!("cannot write {}: {error}", path.display()));
    let mut part = Part::create(path).map_err(cannot)?;
    let end = match copy(body, &mut part.file, Progress::new(false)).await {
        Err(Failure::Output(error)) => return Err(cannot(error)),
        ended => ended?,
    };
    part.finish(path).map_err(cannot)?;
    Ok(end)
}

/// A file on its way, beside the one that it becomes. Dropped before that, it goes.
struct Part {
    file: File,
    path: PathBuf,
    finished: bool,
}

impl Part {
    fn create(path: &Path) -> io::Result<Part> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut part_name = OsString::from(".");
        part_name.push(name);
        part_name.push(format!(".{}.part", std::process::id()));
        let path = path.with_file_name(part_name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Part {
            file,
            path,
            finished: false,
        })
    }

    fn finish(mut self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        self.finished = true;
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        File::open(dir)?.sync_all()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.finished {
            // Where it cannot be removed, its name says what it is.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_client::Seq;

    const DUMP: &str = "{\"key\":\"a\",\"value\":\"1\",\"revision\":1}\n\
                        {\"key\":\"b\",\"value\":\"2\",\"revision\":2}\n\
                        {\"end\":true,\"revision\":2,\"keys\":2}\n";

    fn checked(dump: &[u8], piece_bytes: usize) -> Result<DumpEnd, Failure> {
        let mut check = Check::default();
        for piece in dump.chunks(piece_bytes) {
            check.push(piece)?;
        }
        check.end()
    }

    #[test]
    fn only_a_whole_dump_is_whole_however_it_is_cut() {
        for piece_bytes in 1..=DUMP.len() {
            let end = checked(DUMP.as_bytes(), piece_bytes).unwrap();
            assert_eq!((end.revision, end.keys), (Seq(2), 2));
            for length in 0..DUMP.len() {
                let cut = &DUMP.as_bytes()[..length];
                assert!(
                    matches!(checked(cut, piece_bytes), Err(Failure::Incomplete(_))),
                    "{length} bytes in pieces of {piece_bytes}"
                );
            }
        }
        let miscounted = DUMP.replace("\"keys\":2", "\"keys\":3");
        assert!(checked(miscounted.as_bytes(), 7).is_err());
        let more = format!("{DUMP}{{\"key\":\"c\",\"value\":\"3\",\"revision\":3}}\n");
        assert!(checked(more.as_bytes(), 7).is_err());
    }

    #[test]
    fn a_line_that_never_ends_is_no_dump() {
        let endless = vec![b'x'; DUMP_LINE_BYTES_MAX + 1];
        assert!(checked(&endless, 64 * 1024).is_err());
    }
}
