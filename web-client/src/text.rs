//! Words and numbers as people read them. Pure: the time zone comes in as an argument.

use crate::layout::FRONT_END;
use kvservice_shared::api::{ApiError, ChainEvent, EventKind, Outcome, Role, StorageKind, Value};

/// `18221` as `18,221`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes: `812 B`, `12.4 kB`, `1.0 MB` (powers of 1,000).
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would print as "1000.0".
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// How long ago, in whole units: `4 s`, `3 min`, `2 h`, `5 d`.
#[must_use]
pub fn age(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..172_800 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}

/// `4 s ago`; less than a second is `a moment ago`.
#[must_use]
pub fn ago(ms: u64) -> String {
    if ms < 1000 {
        "a moment ago".to_owned()
    } else {
        format!("{} ago", age(ms))
    }
}

/// What something took: `38 ms`, `1.2 s`.
#[must_use]
pub fn took(ms: u64) -> String {
    if ms < 1000 {
        format!("{ms} ms")
    } else {
        format!("{:.1} s", ms as f64 / 1000.0)
    }
}

/// The time of day at the reader's place: `14:05:09`. `offset_min` is what to add to UTC, in minutes.
#[must_use]
pub fn clock(at_ms: u64, offset_min: i32) -> String {
    let seconds = (at_ms / 1000) as i64 + i64::from(offset_min) * 60;
    let of_day = seconds.rem_euclid(86_400);
    format!(
        "{:02}:{:02}:{:02}",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// `one node`, `2 nodes`.
#[must_use]
pub fn plural(n: u64, one: &str, many: &str) -> String {
    if n == 1 {
        format!("1 {one}")
    } else {
        format!("{} {many}", count(n))
    }
}

/// The word for a member's place.
#[must_use]
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Head => "head",
        Role::Middle => "middle",
        Role::Tail => "tail",
        Role::Single => "single",
    }
}

/// The word for where a node keeps its data.
#[must_use]
pub fn storage(storage: StorageKind) -> &'static str {
    match storage {
        StorageKind::Disk => "disk",
        StorageKind::Memory => "memory",
    }
}

/// An event as one line: `n3 failed · n2 → n4 · 38 ms`.
#[must_use]
pub fn event(event: &ChainEvent) -> String {
    let node = event.node.as_deref().unwrap_or("a node");
    let mut line = match event.kind {
        EventKind::Founded => "cluster founded".to_owned(),
        EventKind::Registered => format!("{node} registered, waits for its turn"),
        EventKind::Joining => format!("{node} is joining"),
        EventKind::Joined => format!("{node} joined as the tail"),
        EventKind::Failed => format!("{node} failed"),
        EventKind::Left => format!("{node} left"),
        EventKind::JoinFailed => format!("{node} did not finish joining"),
        EventKind::Recovered => match &event.node {
            Some(node) => format!("{node} is back"),
            None => "the chain is back".to_owned(),
        },
        EventKind::Outage => "nobody answers: nothing is served".to_owned(),
        EventKind::Restarted => "front-end restarted, took up its stored view".to_owned(),
    };
    match (&event.from, &event.to) {
        (Some(from), Some(to)) => line.push_str(&format!(" · {from} → {to}")),
        (Some(from), None)
            if matches!(event.kind, EventKind::Failed | EventKind::Left) && from != FRONT_END =>
        {
            line.push_str(&format!(" · {from} is the tail"));
        }
        _ => {}
    }
    if let Some(ms) = event.took_ms {
        line.push_str(&format!(" · {}", took(ms)));
    }
    line
}

/// Whether an event is good news, bad news or neither; the page shows it by shape and word too.
#[must_use]
pub fn event_tone(kind: EventKind) -> Tone {
    match kind {
        EventKind::Failed | EventKind::JoinFailed | EventKind::Outage => Tone::Bad,
        EventKind::Joined | EventKind::Founded | EventKind::Recovered => Tone::Good,
        _ => Tone::Plain,
    }
}

/// How a note reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Neither.
    Plain,
    /// It worked.
    Good,
    /// It did not, or someone should look.
    Bad,
}

/// An error as a sentence, with what is known of its outcome.
#[must_use]
pub fn error(error: &ApiError, write: bool) -> String {
    match (write, error.outcome) {
        (true, Outcome::Unknown) => {
            format!(
                "{} It is not known whether this was applied.",
                sentence(&error.message)
            )
        }
        (true, Outcome::NotApplied) => format!("{} Nothing was changed.", sentence(&error.message)),
        (false, _) => sentence(&error.message),
    }
}

/// With a capital letter and a full stop.
#[must_use]
pub fn sentence(text: &str) -> String {
    let mut chars = text.trim().chars();
    let mut out: String = match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => return String::new(),
    };
    if !out.ends_with(['.', '!', '?']) {
        out.push('.');
    }
    out
}

/// The start of a value for a table cell: one line, at most `max` characters, control characters
/// shown as signs; bytes that are no text as hex.
#[must_use]
pub fn preview(value: &Value, max: usize) -> String {
    // Four bytes a character at most, and one to see whether more follows.
    let cut = value.0.len().min(max * 4 + 4);
    let head = &value.0[..cut];
    // A character cut in two at the end is no reason to call the value binary.
    let text = match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        Err(e) if e.error_len().is_none() && cut < value.0.len() => {
            std::str::from_utf8(&head[..e.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let mut out = String::new();
    match text {
        Some(text) => {
            let mut chars = text.chars();
            out.extend(chars.by_ref().take(max).map(visible));
            if chars.next().is_some() || text.len() < value.0.len() {
                out.push('…');
            }
        }
        None => {
            let bytes = max / 3;
            for byte in value.0.iter().take(bytes) {
                out.push_str(&format!("{byte:02x} "));
            }
            out.truncate(out.trim_end().len());
            if value.0.len() > bytes {
                out.push('…');
            }
        }
    }
    out
}

/// Line ends and tabs as signs; other control characters as the sign for what cannot be shown.
fn visible(c: char) -> char {
    match c {
        '\n' => '↵',
        '\t' => '→',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// A hex dump, eight bytes a line: offset, bytes, ASCII. At most `lines` lines.
#[must_use]
pub fn hex_dump(bytes: &[u8], lines: usize) -> String {
    let mut out = String::new();
    for (i, row) in bytes.chunks(8).take(lines).enumerate() {
        let hex: Vec<String> = row.iter().map(|b| format!("{b:02x}")).collect();
        let ascii: String = row
            .iter()
            .map(|&b| {
                if (0x20..0x7f).contains(&b) {
                    b as char
                } else {
                    '.'
                }
            })
            .collect();
        out.push_str(&format!("{:06x}  {:<23}  {ascii}\n", i * 8, hex.join(" ")));
    }
    out
}

/// The longest start of `text` that is at most `bytes_max` bytes long and ends between characters.
#[must_use]
pub fn head_of(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// `text` cut in front to `chars_max` characters: of an address, the port matters most.
#[must_use]
pub fn tail_of(text: &str, chars_max: usize) -> String {
    let chars = text.chars().count();
    if chars <= chars_max {
        return text.to_owned();
    }
    let keep = chars_max.saturating_sub(1);
    format!("…{}", text.chars().skip(chars - keep).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_shared::api::ErrorCode;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(12_400), "12.4 kB");
        assert_eq!(size(999_999), "1.0 MB");
        assert_eq!(size(1_048_576), "1.0 MB");
        assert_eq!(age(59_999), "59 s");
        assert_eq!(age(60_000), "1 min");
        assert_eq!(took(38), "38 ms");
        assert_eq!(took(1_240), "1.2 s");
        assert_eq!(plural(1, "node", "nodes"), "1 node");
        assert_eq!(plural(2000, "node", "nodes"), "2,000 nodes");
    }

    #[test]
    fn the_clock_knows_the_time_zone() {
        assert_eq!(clock(0, 0), "00:00:00");
        assert_eq!(clock(86_399_000, 0), "23:59:59");
        assert_eq!(clock(0, -60), "23:00:00");
        assert_eq!(clock(3_723_000, 330), "06:32:03");
    }

    #[test]
    fn an_event_tells_its_story() {
        let mut failed = ChainEvent {
            at_ms: 1,
            epoch: 4,
            kind: EventKind::Failed,
            node: Some("n3".into()),
            from: Some("n2".into()),
            to: Some("n4".into()),
            took_ms: Some(38),
        };
        assert_eq!(event(&failed), "n3 failed · n2 → n4 · 38 ms");
        failed.to = None;
        assert_eq!(event(&failed), "n3 failed · n2 is the tail · 38 ms");
        failed.kind = EventKind::Joined;
        failed.took_ms = None;
        assert_eq!(event(&failed), "n3 joined as the tail");
    }

    #[test]
    fn errors_say_what_is_known_of_their_outcome() {
        let mut e = ApiError {
            code: ErrorCode::Timeout,
            message: "not committed within 5 s".into(),
            outcome: Outcome::Unknown,
        };
        let said = error(&e, true);
        assert_eq!(
            said,
            "Not committed within 5 s. It is not known whether this was applied."
        );
        e.outcome = Outcome::NotApplied;
        assert_eq!(
            error(&e, true),
            "Not committed within 5 s. Nothing was changed."
        );
        assert_eq!(error(&e, false), "Not committed within 5 s.");
    }

    #[test]
    fn previews_are_one_short_line() {
        assert_eq!(preview(&Value::from("red"), 10), "red");
        assert_eq!(preview(&Value::from("a\nb\tc"), 10), "a↵b→c");
        assert_eq!(preview(&Value::from("0123456789ab"), 10), "0123456789…");
        assert_eq!(
            preview(&Value::from(vec![0xff, 0x00, 0x41]), 12),
            "ff 00 41"
        );
        assert_eq!(preview(&Value::from(vec![0xff; 9]), 12), "ff ff ff ff…");
        // Cut inside a character of three bytes: still text.
        assert_eq!(preview(&Value::from("€".repeat(100)), 5), "€€€€€…");
    }

    #[test]
    fn a_hex_dump_aligns() {
        let dump = hex_dump(b"\x00\xffabcdefg", 10);
        assert_eq!(
            dump,
            "000000  00 ff 61 62 63 64 65 66  ..abcdef\n000008  67                       g\n"
        );
        assert_eq!(hex_dump(&[0; 100], 2).lines().count(), 2);
    }

    #[test]
    fn cutting_never_splits_a_character() {
        assert_eq!(head_of("aé", 2), "a");
        assert_eq!(head_of("aé", 3), "aé");
        assert_eq!(tail_of("127.0.0.1:7411", 8), "….1:7411");
        assert_eq!(tail_of("short", 8), "short");
    }
}
