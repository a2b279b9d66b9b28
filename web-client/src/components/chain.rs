//! The picture of the chain: an SVG as wide as its place, laid out by `layout`.
//!
//! Nodes and links keep their elements from one view to the next (they are keyed by name), so that the
//! style sheet moves them: a dead node greys, the arc over it becomes the arrow, the gap closes.

use super::card::{FrontEndCard, LearnerCard, MemberCard};
use super::numbers::Numbers;
use crate::layout::{self, Cast, Frame, Link, LinkKind};
use crate::state::picture::{Phase, Picture, committed, is_awaited};
use crate::text;
use kvservice_shared::api::Mode;
use std::rc::Rc;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{Element, ResizeObserver};
use yew::prelude::*;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub picture: Rc<Picture>,
    /// Where this page came from: the front-end's client port.
    pub host: AttrValue,
    /// How old the picture is, if it is not the present.
    pub stale: Option<AttrValue>,
}

#[component]
pub fn Chain(props: &Props) -> Html {
    let place = use_node_ref();
    let width = use_width(place.clone());
    let picture = &props.picture;
    let class = classes!("picture", props.stale.is_some().then_some("stale"));
    html! {
        <>
            <div ref={place} {class} data-testid="chain" data-load={picture.load().to_string()}>
                if let Some(age) = &props.stale {
                    <p class="age" data-testid="stale">{ "as it was " }{ age }</p>
                }
                if width > 0.0 {
                    { draw(picture, width, &props.host, props.stale.is_some()) }
                }
            </div>
            if let Some(status) = &picture.status {
                <div class="under">
                    <p class="legend">
                        <span data-testid="view">
                            { match status.mode {
                                Mode::Single => "single server".to_owned(),
                                Mode::Chain => format!("view {}", text::count(status.epoch)),
                            } }
                        </span>
                        <span>{ "committed " }<b>{ text::count(committed(status)) }</b></span>
                        if status.members.len() > 1 {
                            <span class="shows next">{ "next" }</span>
                            <span class="shows second">{ "second, kept warm" }</span>
                        }
                    </p>
                    <Numbers status={status.clone()} />
                </div>
            }
        </>
    }
}

fn draw(picture: &Picture, width: f64, host: &AttrValue, stale: bool) -> Html {
    let Some(status) = &picture.status else {
        return html! { <p class="nothing">{ "Waiting for the front-end…" }</p> };
    };
    let scene = layout::scene(Cast::new(status, &picture.slots), width);
    let top = status
        .members
        .iter()
        .map(|m| m.durable.0.max(m.committed.0))
        .max()
        .unwrap_or(0);
    let load = if stale || status.waiting.is_some() {
        0
    } else {
        picture.load()
    };
    let what = match status.members.len() {
        0 => "The front-end, and no node yet".to_owned(),
        n => format!(
            "The chain: front-end and {}",
            text::plural(n as u64, "node", "nodes")
        ),
    };
    html! {
        <svg
            width={scene.width.to_string()}
            height={scene.height.to_string()}
            viewBox={format!("0 0 {} {}", scene.width, scene.height)}
            class={classes!("load", format!("load-{load}"), status.waiting.as_ref().map(|_| "waits"))}
            role="list"
            aria-label={what}
        >
            <defs>
                { marker("arrow-next", "next") }
                { marker("arrow-second", "second") }
                { marker("arrow-learner", "learner") }
            </defs>
            { for scene.links.iter().map(link) }
            { for scene.links.iter().filter(|l| l.kind == LinkKind::Next).map(pulse) }
            <FrontEndCard
                frame={scene.front_end}
                flow={scene.flow}
                host={host.clone()}
                single={status.mode == Mode::Single}
                writes_per_s={picture.writes_per_s.round() as u64}
            />
            { for scene.empty.map(empty) }
            { for picture.slots.iter().zip(&scene.members).map(|(slot, &frame)| html! {
                <MemberCard
                    key={slot.member.node.clone()}
                    slot={slot.clone()}
                    awaited={is_awaited(status, &slot.member)}
                    committed={committed(status)}
                    {frame}
                    flow={scene.flow}
                    top={top.max(if slot.phase == Phase::Present { 0 } else { slot.member.durable.0 })}
                />
            }) }
            { for status.learners.iter().zip(&scene.learners).enumerate().map(|(i, (learner, &frame))| {
                html! {
                    <LearnerCard
                        key={format!("learner {}", learner.node)}
                        learner={learner.clone()}
                        {frame}
                        flow={scene.flow}
                        waits={i > 0}
                    />
                }
            }) }
        </svg>
    }
}

fn link(link: &Link) -> Html {
    let kind = word(link.kind);
    html! {
        <path
            key={format!("{} {}", link.from, link.to)}
            class={classes!("link", kind)}
            d={link.path.clone()}
            marker-end={format!("url(#arrow-{kind})")}
            data-testid="link"
            data-from={link.from.clone()}
            data-to={link.to.clone()}
            data-kind={kind}
        />
    }
}

/// Writes on their way: a dash that runs along the arrow. `pathLength` makes one speed of all lengths.
fn pulse(link: &Link) -> Html {
    html! {
        <path
            key={format!("pulse {} {}", link.from, link.to)}
            class="pulse"
            d={link.path.clone()}
            pathLength="100"
        />
    }
}

fn word(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Next => "next",
        LinkKind::Second => "second",
        LinkKind::Learner => "learner",
    }
}

fn marker(id: &'static str, class: &'static str) -> Html {
    html! {
        <marker
            {id}
            {class}
            viewBox="0 0 8 8"
            refX="6.5"
            refY="4"
            markerWidth="8"
            markerHeight="8"
            markerUnits="userSpaceOnUse"
            orient="auto"
        >
            <path d="M0 0.5 L7 4 L0 7.5 Z" />
        </marker>
    }
}

/// The place that waits for the first node.
fn empty(frame: Frame) -> Html {
    let middle = frame.x + frame.w / 2.0;
    html! {
        <g class="card vacant" role="listitem">
            <rect
                x={frame.x.to_string()}
                y={frame.y.to_string()}
                width={frame.w.to_string()}
                height={frame.h.to_string()}
                rx="10"
            />
            <text x={middle.to_string()} y={(frame.y + frame.h / 2.0 + 4.0).to_string()} class="mid">
                { "no node yet" }
            </text>
        </g>
    }
}

/// The width of an element, in CSS pixels, as it changes. 0 before the first measurement.
#[hook]
fn use_width(place: NodeRef) -> f64 {
    let width = use_state_eq(|| 0.0);
    let set = width.setter();
    use_effect_with((), move |()| {
        let element = place.cast::<Element>();
        let measure = element.clone();
        let observe = Closure::<dyn Fn()>::new(move || {
            if let Some(element) = &measure {
                set.set(f64::from(element.client_width()));
            }
        });
        let observer = ResizeObserver::new(observe.as_ref().unchecked_ref()).ok();
        // It reports once at the start, before the next paint.
        if let (Some(observer), Some(element)) = (&observer, &element) {
            observer.observe(element);
        }
        move || {
            if let Some(observer) = observer {
                observer.disconnect();
            }
            drop(observe);
        }
    });
    *width
}
