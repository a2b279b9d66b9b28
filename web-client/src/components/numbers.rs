//! The same chain as a table: every number that `status` gives, for who wants it exactly and for who
//! cannot see the picture.

use crate::text;
use kvservice_shared::api::{LearnerPhase, Status};
use std::rc::Rc;
use yew::prelude::*;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub status: Rc<Status>,
}

#[component]
pub fn Numbers(props: &Props) -> Html {
    let status = &props.status;
    let dash = || "–".to_owned();
    html! {
        <details class="numbers" data-testid="numbers">
            <summary>{ "All numbers" }</summary>
            <table>
                <thead>
                    <tr>
                        { for [
                            "Node", "Role", "Address", "Next", "Second", "Durable", "Stable",
                            "Committed", "Applied", "State hash", "Data in",
                        ].map(|head| html! { <th scope="col">{ head }</th> }) }
                    </tr>
                </thead>
                <tbody>
                    { for status.members.iter().map(|m| {
                        let cells = [
                            ("Role", text::role(m.role).to_owned()),
                            ("Address", m.address.clone()),
                            ("Next", m.next.clone().unwrap_or_else(dash)),
                            ("Second", m.second.clone().unwrap_or_else(dash)),
                            ("Durable", text::count(m.durable.0)),
                            ("Stable", text::count(m.stable.0)),
                            ("Committed", text::count(m.committed.0)),
                            ("Applied", text::count(m.applied.0)),
                            ("State hash", m.hash.clone()),
                            ("Data in", text::storage(m.storage).to_owned()),
                        ];
                        html! {
                            <tr key={m.node.clone()}>
                                <th scope="row">{ &m.node }</th>
                                { for cells.map(|(label, text)| cell(label, text)) }
                            </tr>
                        }
                    }) }
                    { for status.learners.iter().map(|l| {
                        let phase = match l.phase {
                            LearnerPhase::Snapshot => "receives a snapshot",
                            LearnerPhase::Log => "catches up",
                            LearnerPhase::Joint => "joint",
                        };
                        let of = format!(
                            "{} behind, {} of {} received",
                            text::count(l.behind),
                            text::size(l.received_bytes),
                            text::size(l.total_bytes),
                        );
                        html! {
                            <tr key={l.node.clone()}>
                                <th scope="row">{ &l.node }</th>
                                { cell("Role", "learner".to_owned()) }
                                { cell("Address", l.address.clone()) }
                                <td colspan="8" data-label="Progress">{ phase }{ ": " }{ of }</td>
                            </tr>
                        }
                    }) }
                </tbody>
            </table>
        </details>
    }
}

fn cell(label: &'static str, text: String) -> Html {
    html! { <td data-label={label}>{ text }</td> }
}
