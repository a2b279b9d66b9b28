//! The cards of the picture: the front-end, a member, a learner.

use crate::layout::{Flow, Frame};
use crate::state::picture::{Phase, Slot, fill, spoken};
use crate::text;
use kvservice_shared::api::{LearnerPhase, LearnerStatus, MemberStatus, Role, StorageKind};
use web_sys::SvgElement;
use yew::prelude::*;

/// Inside a card, left and right.
const PAD: f64 = 14.0;
/// A card narrower than this saves words.
const WORDY: f64 = 190.0;
/// A digit of the address's fixed-width font, in pixels; a little more than the widest common one.
const MONO_CHAR: f64 = 7.3;

/// Keeps an element where its frame says. Through the CSSOM, so that the style sheet can move it there,
/// and no inline style offends the content security policy.
#[hook]
fn use_place(frame: Frame) -> NodeRef {
    let node = use_node_ref();
    let target = node.clone();
    use_effect_with((frame.x, frame.y), move |(x, y)| {
        if let Some(element) = target.cast::<SvgElement>() {
            let _ = element
                .style()
                .set_property("transform", &format!("translate({x}px, {y}px)"));
        }
    });
    node
}

#[derive(Properties, PartialEq)]
pub struct FrontEndProps {
    pub frame: Frame,
    pub flow: Flow,
    pub host: AttrValue,
    /// The node lives in the front-end's own process.
    pub single: bool,
    pub writes_per_s: u64,
}

#[component]
pub fn FrontEndCard(props: &FrontEndProps) -> Html {
    let place = use_place(props.frame);
    let Frame { w, h, .. } = props.frame;
    let host = fit(&props.host, w - 2.0 * PAD);
    let rate = format!("{} writes/s", text::count(props.writes_per_s));
    let note = if props.single {
        "one process"
    } else {
        "clients connect here"
    };
    html! {
        <g
            ref={place}
            class="card front-end"
            role="listitem"
            aria-label={format!("front-end at {}, {rate}", props.host)}
            data-testid="chain-card"
            data-node="front-end"
            data-role="front-end"
        >
            <rect width={w.to_string()} height={h.to_string()} rx="10" />
            { line(PAD, 27.0, "name", "front-end") }
            { line(PAD, 47.0, "address", &host) }
            { match props.flow {
                Flow::Across => html! {
                    <>
                        { line(PAD, h - 35.0, "number", &rate) }
                        { line(PAD, h - 14.0, "small", note) }
                    </>
                },
                Flow::Down | Flow::DownWide => html! {
                    <>
                        { line(w - PAD, 27.0, "number end", &rate) }
                        if w > 300.0 || props.single {
                            { line(w - PAD, 47.0, "small end", note) }
                        }
                    </>
                },
            } }
        </g>
    }
}

#[derive(Properties, PartialEq)]
pub struct MemberProps {
    pub slot: Slot,
    pub frame: Frame,
    pub flow: Flow,
    /// It is away, and nothing is served without it.
    pub awaited: bool,
    /// The furthest point that any member has: what a full bar means.
    pub top: u64,
    /// The furthest committed point that any member knows.
    pub committed: u64,
}

#[component]
pub fn MemberCard(props: &MemberProps) -> Html {
    let place = use_place(props.frame);
    let Frame { w, h, .. } = props.frame;
    let member = &props.slot.member;
    let role = text::role(member.role);
    let here = match props.slot.phase {
        Phase::Present if props.awaited => Some("awaited"),
        Phase::Present => None,
        Phase::Gone { .. } => Some("gone"),
        Phase::Leaving { .. } => Some("gone leaving"),
    };
    let role_shown = match here {
        Some("awaited") => "awaited",
        Some(_) => "gone",
        None => role,
    };
    let lag = match here {
        Some(_) => String::new(),
        None => lag(member, props.committed, w < WORDY),
    };
    let committed = match here {
        Some("awaited") => "–".to_owned(),
        _ => text::count(member.committed.0),
    };
    let storage = text::storage(member.storage);
    let bar = |x: f64, y: f64, width: f64| {
        let point = |class: &'static str, at: u64| {
            let length = width * fill(at, props.top);
            html! {
                <rect
                    {class}
                    x={x.to_string()}
                    y={y.to_string()}
                    width={format!("{length:.1}")}
                    height="6"
                    rx="3"
                />
            }
        };
        html! {
            <g class="bar">
                <rect class="track" x={x.to_string()} y={y.to_string()} width={width.to_string()}
                    height="6" rx="3" />
                { point("durable", member.durable.0) }
                { point("stable", member.stable.0) }
                { point("committed", member.committed.0) }
            </g>
        }
    };
    html! {
        <g
            ref={place}
            class={classes!("card", "member", role, here)}
            role="listitem"
            aria-label={spoken(&props.slot, props.awaited)}
            data-testid="chain-card"
            data-node={member.node.clone()}
            data-role={role_shown}
            data-address={member.address.clone()}
            data-committed={member.committed.0.to_string()}
        >
            <title>
                { format!(
                    "{} · {} · {}\ndurable {} · stable {} · committed {}\nhash {} at {}",
                    member.node, role_shown, member.address,
                    text::count(member.durable.0), text::count(member.stable.0), committed,
                    member.hash, text::count(member.applied.0),
                ) }
            </title>
            <rect class="body" width={w.to_string()} height={h.to_string()} rx="10" />
            { mark(member.role, PAD, 16.5) }
            { line(PAD + 17.0, 27.0, "name", &member.node) }
            { match props.flow {
                Flow::Across => html! {
                    <>
                        { line(w - PAD, 27.0, "role end", role_shown) }
                                                { line(PAD, 47.0, "address", &fit(&member.address, w - 2.0 * PAD)) }
                        { bar(PAD, 62.0, w - 2.0 * PAD) }
                        { line(PAD, h - 35.0, "number", &committed) }
                        { line(w - PAD, h - 35.0, "small end", &lag) }
                        { store(member.storage, PAD, h - 24.0) }
                        { line(PAD + 16.0, h - 14.0, "small", storage) }
                    </>
                },
                Flow::Down => html! {
                    <>
                        { line(PAD + 66.0, 27.0, "role", role_shown) }
                        { line(PAD, 47.0, "address", &fit(&member.address, w - 2.0 * PAD - 84.0)) }
                        { line(w - PAD, 27.0, "number end", &committed) }
                        { line(w - PAD, 47.0, "small end", storage) }
                        { store(member.storage, w - PAD - 16.0 - text_width(storage), 37.0) }
                        { bar(PAD, h - 14.0, w - 2.0 * PAD) }
                    </>
                },
                Flow::DownWide => html! {
                    <>
                        { line(PAD + 66.0, 27.0, "role", role_shown) }
                        { line(PAD, 47.0, "address", &fit(&member.address, 240.0)) }
                        { bar(270.0, h / 2.0 - 3.0, w - 270.0 - 150.0) }
                        { line(w - PAD, 27.0, "number end", &committed) }
                        { line(w - PAD, 47.0, "small end", storage) }
                        { store(member.storage, w - PAD - 16.0 - text_width(storage), 37.0) }
                    </>
                },
            } }
        </g>
    }
}

#[derive(Properties, PartialEq)]
pub struct LearnerProps {
    pub learner: LearnerStatus,
    pub frame: Frame,
    pub flow: Flow,
    /// Another one is before it.
    pub waits: bool,
}

#[component]
pub fn LearnerCard(props: &LearnerProps) -> Html {
    let place = use_place(props.frame);
    let Frame { w, h, .. } = props.frame;
    let learner = &props.learner;
    let received = text::size(learner.received_bytes);
    let (phase, detail) = match learner.phase {
        _ if props.waits => ("waits", String::new()),
        LearnerPhase::Snapshot => (
            "snapshot",
            format!("{received} of {}", text::size(learner.total_bytes)),
        ),
        LearnerPhase::Log => (
            "catches up",
            format!("{} behind", text::count(learner.behind)),
        ),
        LearnerPhase::Joint => ("joint", format!("{} behind", text::count(learner.behind))),
    };
    let done = match learner.phase {
        _ if props.waits => 0.0,
        LearnerPhase::Snapshot => learner.received_bytes as f64 / learner.total_bytes.max(1) as f64,
        LearnerPhase::Log | LearnerPhase::Joint => fill(0, learner.behind),
    };
    let bar = w - 2.0 * PAD;
    let across = props.flow == Flow::Across;
    html! {
        <g
            ref={place}
            class="card learner"
            role="listitem"
            aria-label={format!("{}, joining: {phase} {detail}", learner.node)}
            data-testid="chain-card"
            data-node={learner.node.clone()}
            data-role="learner"
            data-address={learner.address.clone()}
        >
            <title>
                { format!("{} · {}\n{phase}: {received} received, {} behind", learner.node,
                    learner.address, text::count(learner.behind)) }
            </title>
            <rect class="body" width={w.to_string()} height={h.to_string()} rx="10" />
            { line(PAD, 27.0, "name", &learner.node) }
            { line(w - PAD, 27.0, "role end", phase) }
            if across {
                { line(PAD, 46.0, "address", &fit(&learner.address, bar)) }
                { line(PAD, h - 10.0, "small", &detail) }
            } else {
                { line(PAD, 47.0, "address", &fit(&learner.address, bar - 110.0)) }
                { line(w - PAD, 47.0, "small end", &detail) }
            }
            <g class="bar">
                <rect class="track" x={PAD.to_string()} y={if across { "57" } else { "56" }}
                    width={bar.to_string()} height="6" rx="3" />
                <rect class="committed" x={PAD.to_string()} y={if across { "57" } else { "56" }}
                    width={format!("{:.1}", bar * done.clamp(0.0, 1.0))} height="6" rx="3" />
            </g>
        </g>
    }
}

fn line(x: f64, y: f64, class: &'static str, text: &str) -> Html {
    html! { <text x={x.to_string()} y={y.to_string()} {class}>{ text }</text> }
}

/// How far a member is from where it should be: the head from having all that it ordered committed, the
/// others from knowing what is.
fn lag(member: &MemberStatus, committed: u64, short: bool) -> String {
    let heads = matches!(member.role, Role::Head | Role::Single);
    let top = if heads { member.durable.0 } else { committed };
    match top.saturating_sub(member.committed.0) {
        0 if short => String::new(),
        0 => "up to date".to_owned(),
        lag if short => format!("−{}", text::count(lag)),
        lag if heads => format!("{} in flight", text::count(lag)),
        lag => format!("{} behind", text::count(lag)),
    }
}

/// A shape for each place in the chain, ten pixels wide.
fn mark(role: Role, x: f64, y: f64) -> Html {
    let d = match role {
        Role::Head => "M0 0 L9 5 L0 10 Z",
        Role::Middle => "M5 0 L10 5 L5 10 L0 5 Z",
        Role::Tail => "M0.5 0.5 H9.5 V9.5 H0.5 Z",
        Role::Single => "M5 0 A5 5 0 1 1 4.99 0 Z",
    };
    html! { <path class="mark" {d} transform={format!("translate({x} {y})")} /> }
}

/// A disk, or a chip.
fn store(storage: StorageKind, x: f64, y: f64) -> Html {
    let d = match storage {
        StorageKind::Disk => {
            "M1 2.5 A4.5 1.8 0 0 1 10 2.5 V8.5 A4.5 1.8 0 0 1 1 8.5 Z M1 2.5 A4.5 1.8 0 0 0 10 2.5"
        }
        StorageKind::Memory => "M1.5 1.5 H9.5 V9.5 H1.5 Z M4 4 H7 V7 H4 Z",
    };
    html! { <path class="store" {d} transform={format!("translate({x} {y})")} /> }
}

/// About how wide a short word in small letters is.
fn text_width(word: &str) -> f64 {
    word.chars().count() as f64 * 8.0
}

/// An address as far as it fits.
fn fit(address: &str, width: f64) -> String {
    text::tail_of(address, (width / MONO_CHAR).max(4.0) as usize)
}
