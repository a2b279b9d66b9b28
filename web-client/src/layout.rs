//! Where everything in the picture of the chain stands. Pure: a chain and a width go in, boxes and
//! curves in CSS pixels come out; what draws them is `components::chain`.
//!
//! Wide enough, the chain runs left to right: the front-end, then head to tail, arcs above. Otherwise it
//! runs top to bottom, a card becomes a row, and arcs bend over the right edge. A learner stands apart
//! below the tail in both.
//!
//! Every link is one cubic curve, straight or bent, so that a style sheet can turn one into the other
//! when a view changes.

use crate::state::picture::{Phase, Slot};
use kvservice_shared::api::{FrontEndStatus, LearnerStatus, Mode, Status};

/// Narrowest and widest card of the horizontal picture.
const CARD_WIDTH: (f64, f64) = (142.0, 236.0);
const CARD_HEIGHT: f64 = 124.0;
/// Shortest and longest arrow between two cards.
const GAP: (f64, f64) = (34.0, 110.0);
/// Room for the arcs above the cards.
const ARC_ROOM: f64 = 56.0;
/// From the tail down to its learner.
const LEARNER_GAP: f64 = 40.0;
const LEARNER_HEIGHT: f64 = 92.0;

const ROW_HEIGHT: f64 = 70.0;
const ROW_GAP: f64 = 26.0;
/// Where the arrows between rows leave, from the left edge.
const ROW_ARROW_X: f64 = 26.0;
/// Room for the arcs right of the rows.
const ROW_ARC_ROOM: f64 = 34.0;
const LEARNER_INDENT: f64 = 26.0;
/// Rows wider than this put their bar beside their name.
const WIDE_ROW: f64 = 560.0;

/// Narrower than this is a phone: even two cards stand one above the other.
const ACROSS_FROM: f64 = 560.0;

/// The name under which links know the front-end.
pub const FRONT_END: &str = "front-end";

/// The whole picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// In CSS pixels.
    pub width: f64,
    /// In CSS pixels.
    pub height: f64,
    /// Which way it runs.
    pub flow: Flow,
    /// The front-end's card.
    pub front_end: Frame,
    /// One for each slot of the picture, in its order.
    pub members: Vec<Frame>,
    /// One for each learner, in the status's order.
    pub learners: Vec<Frame>,
    /// Where the first node would stand while there is none.
    pub empty: Option<Frame>,
    /// Arrows and arcs.
    pub links: Vec<Link>,
}

/// Which way the chain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Left to right; a node is a card.
    Across,
    /// Top to bottom; a node is a row of two lines.
    Down,
    /// Top to bottom; a node is a row with its bar beside its name.
    DownWide,
}

/// A rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub w: f64,
    /// Height.
    pub h: f64,
}

/// A pointer from one node to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Names of its ends, the same however it is drawn: what was `second` becomes `next`.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// What it is.
    pub kind: LinkKind,
    /// An SVG path: always `M x y C x y x y x y`.
    pub path: String,
}

/// What a pointer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// Writes flow here.
    Next,
    /// Kept warm, for the day that `next` fails.
    Second,
    /// A learner is fed.
    Learner,
}

/// What stands in the picture.
#[derive(Clone, Copy, Debug)]
pub struct Cast<'a> {
    /// Head to tail, those who just left among them.
    pub slots: &'a [Slot],
    /// Nodes on their way in.
    pub learners: &'a [LearnerStatus],
    /// The front-end's pointers.
    pub front_end: &'a FrontEndStatus,
    /// In `single` the front-end needs no pointer to its own node.
    pub mode: Mode,
}

impl<'a> Cast<'a> {
    /// The cast of a status, with those who just left.
    #[must_use]
    pub fn new(status: &'a Status, slots: &'a [Slot]) -> Cast<'a> {
        Cast {
            slots,
            learners: &status.learners,
            front_end: &status.front_end,
            mode: status.mode,
        }
    }
}

/// Lays the picture out in `width` CSS pixels.
#[must_use]
pub fn scene(cast: Cast<'_>, width: f64) -> Scene {
    let width = width.max(240.0);
    // Who fades already takes no place.
    let standing = cast.slots.iter().filter(|s| !leaving(s)).count().max(1) as f64;
    let fits = (standing + 1.0) * CARD_WIDTH.0 + standing * GAP.0 <= width;
    let across = fits && width >= ACROSS_FROM;
    let mut scene = if across {
        place_across(cast, width)
    } else {
        place_down(cast, width)
    };
    scene.links = links(cast, &scene);
    scene
}

fn leaving(slot: &Slot) -> bool {
    matches!(slot.phase, Phase::Leaving { .. })
}

fn place_across(cast: Cast<'_>, width: f64) -> Scene {
    let standing = cast.slots.iter().filter(|s| !leaving(s)).count().max(1) as f64;
    let card =
        ((width - standing * GAP.0 * 1.8) / (standing + 1.0)).clamp(CARD_WIDTH.0, CARD_WIDTH.1);
    let gap = ((width - (standing + 1.0) * card) / standing).clamp(GAP.0, GAP.1);
    let used = (standing + 1.0) * card + standing * gap;
    let left = ((width - used) / 2.0).max(0.0);
    let at = |place: f64| Frame {
        x: round(left + place * (card + gap)),
        y: ARC_ROOM,
        w: round(card),
        h: CARD_HEIGHT,
    };

    let mut place = 1.0;
    let members: Vec<Frame> = cast
        .slots
        .iter()
        .map(|slot| {
            if leaving(slot) {
                // Where the gap closes.
                at(place - 0.5)
            } else {
                place += 1.0;
                at(place - 1.0)
            }
        })
        .collect();

    // The first learner below the tail, those who wait for their turn to its left, row by row.
    let columns = standing + 1.0;
    let learners: Vec<Frame> = (0..cast.learners.len())
        .map(|i| {
            let (row, column) = (i / columns as usize, i % columns as usize);
            let below = at(columns - 1.0 - column as f64);
            Frame {
                y: ARC_ROOM + CARD_HEIGHT + LEARNER_GAP + row as f64 * (LEARNER_HEIGHT + ROW_GAP),
                h: LEARNER_HEIGHT,
                ..below
            }
        })
        .collect();
    let bottom = learners
        .iter()
        .map(|l| l.y + l.h)
        .fold(ARC_ROOM + CARD_HEIGHT, f64::max);
    Scene {
        width,
        height: bottom + 4.0,
        flow: Flow::Across,
        front_end: at(0.0),
        empty: cast.slots.is_empty().then(|| at(1.0)),
        members,
        learners,
        links: Vec::new(),
    }
}

fn place_down(cast: Cast<'_>, width: f64) -> Scene {
    let row = round(width - ROW_ARC_ROOM);
    let at = |place: f64| Frame {
        x: 1.0,
        y: round(2.0 + place * (ROW_HEIGHT + ROW_GAP)),
        w: row - 1.0,
        h: ROW_HEIGHT,
    };
    let mut place = 1.0;
    let members: Vec<Frame> = cast
        .slots
        .iter()
        .map(|slot| {
            if leaving(slot) {
                at(place - 0.5)
            } else {
                place += 1.0;
                at(place - 1.0)
            }
        })
        .collect();
    let empty = cast.slots.is_empty().then(|| at(1.0));
    if empty.is_some() {
        place += 1.0;
    }
    let learners: Vec<Frame> = (0..cast.learners.len())
        .map(|i| {
            let frame = at(place + i as f64);
            Frame {
                x: frame.x + LEARNER_INDENT,
                w: frame.w - LEARNER_INDENT,
                ..frame
            }
        })
        .collect();
    let rows = place + cast.learners.len() as f64;
    Scene {
        width,
        height: rows * (ROW_HEIGHT + ROW_GAP) - ROW_GAP + 4.0,
        flow: if row >= WIDE_ROW {
            Flow::DownWide
        } else {
            Flow::Down
        },
        front_end: at(0.0),
        members,
        learners,
        empty,
        links: Vec::new(),
    }
}

/// One end of a link: a name, its place in the line (the front-end's is 0), its frame.
#[derive(Clone, Copy)]
struct End<'a> {
    name: &'a str,
    place: usize,
    frame: Frame,
}

fn links(cast: Cast<'_>, scene: &Scene) -> Vec<Link> {
    let front_end = End {
        name: FRONT_END,
        place: 0,
        frame: scene.front_end,
    };
    let ends: Vec<End<'_>> = cast
        .slots
        .iter()
        .zip(&scene.members)
        .enumerate()
        .map(|(i, (slot, &frame))| End {
            name: &slot.member.node,
            place: i + 1,
            frame,
        })
        .collect();
    // Only who is in the current view points, and is pointed at.
    let present: Vec<(&Slot, End<'_>)> = cast
        .slots
        .iter()
        .zip(ends.iter().copied())
        .filter(|(slot, _)| slot.phase == Phase::Present)
        .collect();
    let find = |address: &Option<String>| {
        let address = address.as_deref()?;
        present
            .iter()
            .find(|(slot, _)| slot.member.address == address)
            .map(|(_, end)| *end)
    };

    let mut links = Vec::new();
    let mut add = |from: End<'_>, to: Option<End<'_>>, kind: LinkKind| {
        if let Some(to) = to.filter(|to| to.place != from.place) {
            links.push(Link {
                from: from.name.to_owned(),
                to: to.name.to_owned(),
                kind,
                path: path(scene.flow, from, to, kind),
            });
        }
    };
    let head = match cast.mode {
        Mode::Single => present.first().map(|(_, end)| *end),
        Mode::Chain => find(&cast.front_end.head),
    };
    add(front_end, head, LinkKind::Next);
    add(front_end, find(&cast.front_end.second), LinkKind::Second);
    for (slot, end) in &present {
        add(*end, find(&slot.member.next), LinkKind::Next);
        add(*end, find(&slot.member.second), LinkKind::Second);
    }
    // The tail feeds the first learner; the others wait.
    if let (Some((_, tail)), Some(learner), Some(&frame)) = (
        present.last(),
        cast.learners.first(),
        scene.learners.first(),
    ) {
        let to = End {
            name: &learner.node,
            place: usize::MAX,
            frame,
        };
        add(*tail, Some(to), LinkKind::Learner);
    }
    // Two pointers to one node (a head that is its own successor's second, say) are one line.
    links.sort_by(|a, b| (&a.from, &a.to, a.kind).cmp(&(&b.from, &b.to, b.kind)));
    links.dedup_by(|b, a| a.from == b.from && a.to == b.to);
    links
}

fn path(flow: Flow, from: End<'_>, to: End<'_>, kind: LinkKind) -> String {
    let (a, b) = (from.frame, to.frame);
    let neighbours = to.place == from.place + 1;
    match flow {
        _ if kind == LinkKind::Learner => {
            let x = if flow == Flow::Across {
                b.x + b.w / 2.0
            } else {
                b.x + ROW_ARROW_X
            };
            straight(x, a.y + a.h + 2.0, x, b.y - 3.0)
        }
        Flow::Across if neighbours => {
            let y = a.y + a.h / 2.0;
            straight(a.x + a.w + 2.0, y, b.x - 3.0, y)
        }
        Flow::Across => {
            let (x1, x2) = (a.x + a.w / 2.0 + 12.0, b.x + b.w / 2.0 - 12.0);
            let (y1, y2) = (a.y - 1.0, b.y - 3.0);
            let rise = ARC_ROOM * 1.18;
            let lean = (x2 - x1) * 0.22;
            curve([x1, y1, x1 + lean, y1 - rise, x2 - lean, y2 - rise, x2, y2])
        }
        Flow::Down | Flow::DownWide if neighbours => {
            let x = a.x + ROW_ARROW_X;
            straight(x, a.y + a.h + 2.0, x, b.y - 3.0)
        }
        Flow::Down | Flow::DownWide => {
            let (x1, x2) = (a.x + a.w + 1.0, b.x + b.w + 3.0);
            let (y1, y2) = (a.y + a.h / 2.0 + 12.0, b.y + b.h / 2.0 - 12.0);
            let bulge = ROW_ARC_ROOM * 1.1;
            let lean = (y2 - y1) * 0.15;
            curve([x1, y1, x1 + bulge, y1 + lean, x2 + bulge, y2 - lean, x2, y2])
        }
    }
}

fn straight(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    let (dx, dy) = ((x2 - x1) / 3.0, (y2 - y1) / 3.0);
    curve([x1, y1, x1 + dx, y1 + dy, x2 - dx, y2 - dy, x2, y2])
}

fn curve(p: [f64; 8]) -> String {
    let p = p.map(round);
    format!(
        "M {} {} C {} {} {} {} {} {}",
        p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]
    )
}

/// To half a pixel: sharp lines, and short numbers in the page.
fn round(x: f64) -> f64 {
    (x * 2.0).round() / 2.0
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
