//! Messages as lines of a trace that people read.

use crate::node::name;
use kvservice_server::gateway::DumpAnswer;
use kvservice_shared::api::{ListEntry, Outcome, Reply, Response};
use kvservice_shared::chain::{
    Answer, AnswerBody, Boundaries, ChainOp, ChainRequest, Downstream, FromNode, Refusal,
    SnapshotPart, ToNode, Upstream, View, Write,
};
use kvservice_shared::ids::SessionUuid;

/// How much of a trace is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Heartbeats and reports: all the time.
    Beat,
    /// The protocol.
    Message,
}

pub fn view(view: &View) -> String {
    let members: Vec<String> = view
        .members
        .iter()
        .map(|m| name(m.id).to_string())
        .collect();
    format!("{} [{}]", view.epoch, members.join(" "))
}

pub fn log(log: &Boundaries) -> String {
    let mut parts = Vec::new();
    if log.base.last.0 > 0 {
        parts.push(format!("..{}@{}", log.base.last, log.base.epoch));
    }
    parts.extend(
        log.runs
            .iter()
            .map(|run| format!("{}@{}", run.last, run.epoch)),
    );
    if parts.is_empty() {
        "empty".to_owned()
    } else {
        parts.join(" ")
    }
}

pub fn session(uuid: SessionUuid) -> String {
    let bits = uuid.0.as_u128();
    match bits >> 64 {
        0 => format!("S{bits}"),
        life => format!("own {life}.{}", bits as u64),
    }
}

pub fn to_node(message: &ToNode) -> (Weight, String) {
    let text = match message {
        ToNode::Beat => return (Weight::Beat, "beat".to_owned()),
        ToNode::Welcome { cluster, name } => {
            format!("welcome to {:x} as {name}", cluster.0.as_u128())
        }
        ToNode::Refused(Refusal::OtherCluster { .. }) => "refused: other cluster".to_owned(),
        ToNode::Refused(refusal) => format!("refused: {refusal:?}"),
        ToNode::Claim { term } => format!("claim {term}"),
        ToNode::View(new) => format!("view {}", view(new)),
        ToNode::Learner { epoch, learner } => format!("learner {epoch} {}", name(learner.id)),
        ToNode::Probe { nonce } => format!("probe {nonce}"),
        ToNode::Requests { epoch, requests } => {
            format!("requests {epoch}: {}", list(requests, request))
        }
        ToNode::StopInPlace => "stop in place".to_owned(),
    };
    (Weight::Message, text)
}

pub fn from_node(message: &FromNode) -> (Weight, String) {
    let text = match message {
        FromNode::Report(_) => return (Weight::Beat, "report".to_owned()),
        FromNode::Register(register) => {
            let mut text = "register".to_owned();
            if register.term > 0 {
                text += &format!(" term {}", register.term);
            }
            match &register.view {
                Some(of) => text += &format!(" view {}", view(of)),
                None => text += " new",
            }
            if let Some(offer) = &register.offer {
                text += &format!(" offer {}", name(offer.id));
            }
            text + " log " + &log(&register.log)
        }
        FromNode::Down { epoch, id, offered } => {
            format!(
                "down {epoch} {}{}",
                name(*id),
                if *offered { " (offered)" } else { "" }
            )
        }
        FromNode::Ready { epoch, id } => format!("ready {epoch} {}", name(*id)),
        FromNode::Here { nonce } => format!("here {nonce}"),
        FromNode::Answers { epoch, answers } => {
            format!("answers {epoch}: {}", list(answers, answer))
        }
        FromNode::AskView => "ask view".to_owned(),
        FromNode::Leave => "leave".to_owned(),
    };
    (Weight::Message, text)
}

pub fn downstream(message: &Downstream) -> (Weight, String) {
    let text = match message {
        Downstream::Beat { .. } => return (Weight::Beat, "beat".to_owned()),
        Downstream::Link { view: of, learner } => {
            format!(
                "link {}{}",
                view(of),
                if *learner { " learner" } else { "" }
            )
        }
        Downstream::Append {
            epoch,
            settle,
            committed,
            batches,
        } => {
            let mut text = format!("append {epoch}");
            if let Some(settle) = settle {
                text += &format!(" settle {settle}");
            }
            for batch in batches {
                text += &format!(" {batch:?}");
            }
            text + &format!(" committed {committed}")
        }
        Downstream::Snapshot { epoch, part } => {
            let part = match part {
                SnapshotPart::Begin { at, at_epoch, .. } => format!("begin {at}@{at_epoch}"),
                SnapshotPart::Keys {
                    entries, through, ..
                } => {
                    let end = through.as_ref().map_or("the end".to_owned(), Clone::clone);
                    format!("{} keys to {end}", entries.len())
                }
                SnapshotPart::Sessions { sessions, .. } => format!("{} sessions", sessions.len()),
                SnapshotPart::Evicted { names } => format!("{} names", names.len()),
                SnapshotPart::End { at } => format!("end {at}"),
            };
            format!("snapshot {epoch} {part}")
        }
    };
    (Weight::Message, text)
}

pub fn upstream(message: &Upstream) -> (Weight, String) {
    let text = match message {
        Upstream::Beat { .. } => return (Weight::Beat, "beat".to_owned()),
        Upstream::Have {
            epoch,
            log: of,
            unfinished,
        } => {
            let next = unfinished.as_ref().map(|unfinished| &unfinished.next);
            let next = next.map_or(String::new(), |next| format!(", unfinished from {next:?}"));
            format!("have {epoch} {}{next}", log(of))
        }
        Upstream::Stable {
            epoch,
            stable,
            complete,
        } => {
            format!(
                "stable {epoch} {stable}{}",
                if *complete { "" } else { " incomplete" }
            )
        }
        Upstream::Received { epoch, bytes } => format!("received {epoch} {bytes}"),
        Upstream::Stale { epoch } => format!("stale {epoch}"),
    };
    (Weight::Message, text)
}

/// Long lists are cut: scripts stay readable.
fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    const SHOWN: usize = 3;
    let mut parts: Vec<String> = items.iter().take(SHOWN).map(show).collect();
    if items.len() > SHOWN {
        parts.push(format!("… {} in all", items.len()));
    }
    parts.join(", ")
}

fn request(request: &ChainRequest) -> String {
    let op = match &request.op {
        ChainOp::Open { uuid, .. } => format!("open {}", session(*uuid)),
        ChainOp::Get { key } => format!("get {key}"),
        ChainOp::List { prefix, .. } => format!("list {prefix:?}"),
        ChainOp::DumpStart => "dump".to_owned(),
        ChainOp::DumpNext { dump } => format!("dump {dump} goes on"),
        ChainOp::DumpEnd { dump } => format!("dump {dump} ends"),
        ChainOp::Write {
            session,
            request,
            write,
        } => {
            let write = match write {
                Write::Set { key, value } => format!("set {key}={value:?}"),
                Write::TestSet { key, test, value } => {
                    let test = test
                        .as_ref()
                        .map_or("absent".to_owned(), |test| format!("{test:?}"));
                    format!("testset {key}={test}→{value:?}")
                }
                Write::Delete { key } => format!("delete {key}"),
            };
            format!("{session}#{request} {write}")
        }
    };
    format!("{} {op}", request.ticket)
}

fn answer(answer: &Answer) -> String {
    let body = match &answer.body {
        AnswerBody::Opened {
            session, resumed, ..
        } => {
            format!("opened {session}{}", if *resumed { " resumed" } else { "" })
        }
        AnswerBody::Set { revision } => format!("set {revision}"),
        AnswerBody::Swapped { revision } => format!("swapped {revision}"),
        AnswerBody::NotSwapped { found, revision } => {
            let found = found
                .as_ref()
                .map_or("nothing".to_owned(), |value| format!("{value:?}"));
            format!("not swapped, found {found} of {revision}")
        }
        AnswerBody::Deleted {
            revision: Some(revision),
        } => format!("deleted {revision}"),
        AnswerBody::Deleted { revision: None } => "nothing to delete".to_owned(),
        AnswerBody::Value { value, revision } => {
            let value = value
                .as_ref()
                .map_or("nothing".to_owned(), |value| format!("{value:?}"));
            format!("value {value} of {revision}")
        }
        AnswerBody::List { entries, more } => {
            format!(
                "{} entries{}",
                entries.len(),
                if *more { " and more" } else { "" }
            )
        }
        AnswerBody::Forgotten => "forgotten".to_owned(),
        AnswerBody::NoSession => "no session".to_owned(),
        AnswerBody::IdReused => "id reused".to_owned(),
        AnswerBody::TooFewReplicas { members, wanted } => format!("{members} of {wanted} replicas"),
        AnswerBody::DumpPage {
            revision,
            entries,
            more,
        } => format!(
            "{} entries at {revision}{}",
            entries.len(),
            if *more { " and more" } else { "" }
        ),
        AnswerBody::NoDump { reason } => format!("no dump: {reason}"),
    };
    format!("{} {body}", answer.ticket)
}

/// A page of a dump, as its reader sees it.
pub fn dump(answer: &DumpAnswer) -> String {
    match answer {
        Ok(page) => {
            let entry = |entry: &ListEntry| format!("{} of {}", entry.key, entry.revision);
            let more = if page.more { " and more" } else { ", the end" };
            format!("at {}: {}{more}", page.revision, list(&page.entries, entry))
        }
        Err(reason) => format!("none: {reason}"),
    }
}

/// A response, as a client sees it.
pub fn response(response: &Response) -> String {
    let id = response.id.map_or("?".to_owned(), |id| id.to_string());
    let text = |value: &Option<kvservice_shared::api::Value>| {
        value.as_ref().map_or("nothing".to_owned(), |value| {
            let mut text = format!("{value:?}");
            if text.len() > 24 {
                text = format!("{} bytes", value.0.len());
            }
            text
        })
    };
    let body = match &response.result {
        Ok(Reply::Get { value, revision }) => format!("{} of {revision}", text(value)),
        Ok(Reply::Set { revision, .. }) => format!("set at {revision}"),
        Ok(Reply::TestSet {
            swapped: true,
            revision,
            ..
        }) => format!("swapped at {revision}"),
        Ok(Reply::TestSet {
            value, revision, ..
        }) => {
            format!("not swapped, found {} of {revision}", text(value))
        }
        Ok(Reply::Delete {
            deleted: true,
            revision,
        }) => format!("deleted at {revision}"),
        Ok(Reply::Delete { .. }) => "nothing to delete".to_owned(),
        Ok(Reply::List { entries, more }) => {
            let shown: Vec<String> = entries
                .iter()
                .map(|e| format!("{}={:?}@{}", e.key, e.value, e.revision))
                .collect();
            format!(
                "[{}]{}",
                shown.join(" "),
                if *more { " and more" } else { "" }
            )
        }
        Ok(Reply::Status(status)) => format!("status epoch {}", status.epoch),
        Ok(Reply::Hello {
            session: uuid,
            resumed,
            ..
        }) => {
            format!(
                "{} {}",
                session(*uuid),
                if *resumed { "resumed" } else { "not resumed" }
            )
        }
        Err(error) => {
            let outcome = match error.outcome {
                Outcome::NotApplied => "not applied",
                Outcome::Unknown => "outcome unknown",
            };
            format!("error {:?} ({outcome}): {}", error.code, error.message)
        }
    };
    format!("{id}: {body}")
}
