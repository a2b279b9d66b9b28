//! The browser client's files, from a folder that may appear, change and vanish while the server runs: every
//! request looks there again. What was read is kept as long as the file's size and time stay the same, so
//! that any number of slow clients share one copy.
//!
//! The folder is `--web-dir`, else `web` beside the binary. A path names files under it and nothing else; a
//! `.br` or `.gz` beside a file is sent in its place to those who accept it.

use super::{Answer, page, set, text};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use std::{env, fs, io};

/// A file that is larger is no part of a page, and is not served.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Once the files kept pass this many bytes, all are let go.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How a page's files compressed beforehand end, best first, and what HTTP calls that.
const ENCODINGS: [(&str, &str); 2] = [("br", "br"), ("gz", "gzip")];

/// The folder, and what was read from it.
pub(super) struct Files {
    dir: Option<PathBuf>,
    kept: Mutex<HashMap<PathBuf, Arc<File>>>,
}

/// A file as it was when its size and time were these.
struct File {
    modified: Option<SystemTime>,
    body: Bytes,
    etag: HeaderValue,
    /// Of a page, its content security policy.
    policy: Option<HeaderValue>,
}

/// What a request comes to.
enum Found {
    File {
        file: Arc<File>,
        encoding: Option<&'static str>,
        policy: Option<HeaderValue>,
    },
    NotBuilt(PathBuf),
    Nothing,
}

impl Files {
    pub(super) fn new(dir: Option<PathBuf>) -> Files {
        Files {
            dir,
            kept: Mutex::default(),
        }
    }

    pub(super) async fn answer(self: &Arc<Files>, path: &str, headers: &HeaderMap) -> Answer {
        let Some(relative) = relative(path) else {
            return not_found();
        };
        let accepts = ENCODINGS.map(|(_, name)| accepts(headers, name));
        let files = Arc::clone(self);
        let name = relative.clone();
        // A disk can be slow, and this thread has a chain to serve.
        let found = tokio::task::spawn_blocking(move || files.find(&name, accepts)).await;
        match found {
            Ok(Ok(Found::File {
                file,
                encoding,
                policy,
            })) => file_answer(&relative, &file, encoding, policy, headers),
            Ok(Ok(Found::NotBuilt(dir))) => placeholder(&dir),
            Ok(Ok(Found::Nothing)) => not_found(),
            Ok(Err(error)) => {
                tracing::warn!(path, %error, "cannot read a file of the page");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the file cannot be read; see the log\n",
                )
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "stopping\n"),
        }
    }

    fn find(&self, relative: &str, accepts: [bool; ENCODINGS.len()]) -> io::Result<Found> {
        let dir = self.dir()?;
        let path = dir.join(relative);
        let Some(plain) = self.load(&path)? else {
            let is_page = relative == "index.html";
            return Ok(if is_page {
                Found::NotBuilt(dir)
            } else {
                Found::Nothing
            });
        };
        let policy = plain.policy.clone();
        for ((ending, name), accepted) in ENCODINGS.into_iter().zip(accepts) {
            if accepted && let Some(file) = self.load(&dir.join(format!("{relative}.{ending}")))? {
                return Ok(Found::File {
                    file,
                    encoding: Some(name),
                    policy,
                });
            }
        }
        Ok(Found::File {
            file: plain,
            encoding: None,
            policy,
        })
    }

    fn dir(&self) -> io::Result<PathBuf> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => Ok(env::current_exe()?.with_file_name("web")),
        }
    }

    /// A file's present content; `None` where there is none.
    fn load(&self, path: &Path) -> io::Result<Option<Arc<File>>> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Ok(None),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "too large for a page",
            ));
        }
        let modified = metadata.modified().ok();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = kept.get(path)
            && file.modified == modified
            && file.body.len() as u64 == metadata.len()
        {
            return Ok(Some(Arc::clone(file)));
        }
        let file = Arc::new(File::new(path, modified, fs::read(path)?));
        let kept_bytes: usize = kept.values().map(|file| file.body.len()).sum();
        if kept_bytes + file.body.len() > KEPT_BYTES_MAX {
            kept.clear();
        }
        kept.insert(path.to_path_buf(), Arc::clone(&file));
        Ok(Some(file))
    }
}

impl File {
    fn new(path: &Path, modified: Option<SystemTime>, body: Vec<u8>) -> File {
        let mut etag = "\"".to_string();
        for byte in &Sha256::digest(&body)[..12] {
            // Writing to a string cannot fail.
            let _ = write!(etag, "{byte:02x}");
        }
        etag.push('"');
        let is_page = path.extension().is_some_and(|ending| ending == "html");
        let policy = is_page.then(|| page::policy(&String::from_utf8_lossy(&body)));
        File {
            modified,
            body: Bytes::from(body),
            etag: header_value(&etag),
            policy: policy.as_deref().map(header_value),
        }
    }
}

/// A name under the folder, from a request's path; `None` for what cannot be one of ours: anything that climbs
/// (`..`), hides (`.git`), or means something else on another system (`\`, `:`).
fn relative(path: &str) -> Option<String> {
    let path = percent_decoded(path.strip_prefix('/')?)?;
    if path.is_empty() {
        return Some("index.html".to_string());
    }
    let ours = |name: &str| {
        let plain = |c: char| !c.is_control() && !matches!(c, '\\' | ':');
        !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
    };
    path.split('/').all(ours).then_some(path)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digit = |b: u8| char::from(b).to_digit(16);
            bytes.push(u8::try_from(digit(digits[0])? << 4 | digit(digits[1])?).ok()?);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Also a path through something that is no folder, or with a name too long for a file.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(
        error.kind(),
        NotFound | NotADirectory | InvalidFilename | InvalidInput
    )
}

/// Whether `Accept-Encoding` names an encoding, and not with `q=0`.
fn accepts(headers: &HeaderMap, encoding: &str) -> bool {
    let values = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|offer| {
        let (name, weight) = offer.split_once(';').unwrap_or((offer, ""));
        let weight = weight
            .trim()
            .strip_prefix("q=")
            .and_then(|q| q.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case(encoding) && weight != Some(0.0)
    })
}

fn file_answer(
    name: &str,
    file: &File,
    encoding: Option<&'static str>,
    policy: Option<HeaderValue>,
    request: &HeaderMap,
) -> Answer {
    let unchanged = request
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tags| matches_etag(tags.as_bytes(), file.etag.as_bytes()));
    let mut answer = if unchanged {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        Response::new(Full::new(file.body.clone()))
    };
    answer.headers_mut().insert(header::ETAG, file.etag.clone());
    set(&mut answer, header::CONTENT_TYPE, content_type(name));
    set(&mut answer, header::VARY, "accept-encoding");
    let cache = if is_hashed(name) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    set(&mut answer, header::CACHE_CONTROL, cache);
    if let Some(encoding) = encoding {
        set(&mut answer, header::CONTENT_ENCODING, encoding);
    }
    secure(&mut answer, policy);
    answer
}

fn placeholder(dir: &Path) -> Answer {
    let html = page::placeholder(dir);
    let policy = header_value(&page::policy(&html));
    let mut answer = Response::new(Full::new(Bytes::from(html)));
    set(
        &mut answer,
        header::CONTENT_TYPE,
        "text/html; charset=utf-8",
    );
    set(&mut answer, header::CACHE_CONTROL, "no-store");
    secure(&mut answer, Some(policy));
    answer
}

fn not_found() -> Answer {
    text(
        StatusCode::NOT_FOUND,
        "there is nothing here; the page is at /\n",
    )
}

/// What keeps a page from being used against its visitor.
fn secure(answer: &mut Answer, policy: Option<HeaderValue>) {
    let none = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    answer
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy.unwrap_or(none));
    set(answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(answer, header::REFERRER_POLICY, "no-referrer");
    set(answer, header::X_FRAME_OPTIONS, "DENY");
    set(
        answer,
        header::HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    set(
        answer,
        header::HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
}

fn matches_etag(tags: &[u8], etag: &[u8]) -> bool {
    tags.split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag)
}

/// Whether the name holds a hash of the content, as trunk writes it: `-` and 16 hex digits. Such a file never
/// changes.
fn is_hashed(name: &str) -> bool {
    let stem = name.rsplit('/').next().unwrap_or(name);
    stem.split('-').skip(1).any(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        digits == 16 && part[digits..].starts_with(['.', '_'])
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        // Browsers compile it while it arrives only under this type.
        "wasm" => "application/wasm",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// For text that we made: hashes and policies, all ASCII.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("hex, base64 and our own words are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_folder() {
        assert_eq!(relative("/").as_deref(), Some("index.html"));
        assert_eq!(relative("/a/b%20c.js").as_deref(), Some("a/b c.js"));
        for path in [
            "",
            "a",
            "//",
            "/a//b",
            "/../x",
            "/a/../x",
            "/%2e%2e/x",
            "/%2E./x",
            "/..%2fx",
            "/a/..%2f..%2fx",
            "/./x",
            "/.git/config",
            "/a/.env",
            "/a%5c..%5cx",
            "/a\\b",
            "/C:/x",
            "/a%00b",
            "/%",
            "/%4",
            "/%zz",
            "/%ff",
            "/a/",
            "/%2fetc/passwd",
            "//etc/passwd",
            "*",
        ] {
            assert_eq!(relative(path), None, "{path:?}");
        }
    }

    #[test]
    fn only_hashed_names_are_immutable() {
        for hashed in [
            "page-0123456789abcdef.js",
            "page-0123456789abcdef_bg.wasm",
            "a/x-y-00112233aabbccdd.css",
        ] {
            assert!(is_hashed(hashed), "{hashed}");
        }
        for plain in [
            "index.html",
            "page-0123.js",
            "0123456789abcdef.js",
            "page-0123456789abcdef0.js",
            "a-b.js",
        ] {
            assert!(!is_hashed(plain), "{plain}");
        }
    }

    #[test]
    fn encodings_are_accepted_by_name_and_weight() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("gzip;q=0.5, BR ; q=0, deflate"),
        );
        assert!(accepts(&headers, "gzip"));
        assert!(!accepts(&headers, "br"));
        assert!(!accepts(&HeaderMap::new(), "gzip"));
    }

    #[test]
    fn etags_match_weakly() {
        assert!(matches_etag(b"W/\"a\" , \"b\"", b"\"a\""));
        assert!(matches_etag(b"*", b"\"a\""));
        assert!(!matches_etag(b"\"ab\"", b"\"a\""));
    }
}
