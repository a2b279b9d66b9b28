//! Dumps: pages from the head to a reader, one for each time that the reader asks. None is sent again after a
//! change of the head, for no other head has the dump: its reader is told so, and starts anew.

use super::{Asker, Gateway, OPEN_BYTES, Route};
use kvservice_shared::api::ListEntry;
use kvservice_shared::chain::{AnswerBody, ChainOp, ChainRequest};
use kvservice_shared::ids::{ConnId, Seq, Ticket};
use kvservice_shared::limits::DUMPS_MAX;

/// A page of a dump, for its reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpPage {
    /// The point that the whole dump shows.
    pub revision: Seq,
    /// In key order; may be none although there are more.
    pub entries: Vec<ListEntry>,
    /// Whether there are more pages.
    pub more: bool,
}

/// What a reader that asked is told: the next page, or why there is none and will be none. After the last page,
/// and after a refusal, its dump is over.
pub type DumpAnswer = Result<DumpPage, String>;

/// A dump that is being read.
#[derive(Debug)]
pub(super) struct Dump {
    /// The head's name for it: the ticket that started it.
    name: Ticket,
    /// The page that was asked for.
    asked: Option<Ticket>,
}

impl Gateway {
    /// A reader wants a dump.
    pub(super) fn on_dump(&mut self, conn: ConnId) {
        let refusal = match &self.route {
            Route::Closed(reason) => Some(reason.clone()),
            Route::Wait => Some("the head is being replaced: try again soon".to_owned()),
            Route::Head(_) if self.dumps.len() >= DUMPS_MAX => Some(format!(
                "{DUMPS_MAX} dumps are being read already: try again later"
            )),
            Route::Head(_) => None,
        };
        if let Some(reason) = refusal {
            return self.out.dumps.push((conn, Err(reason)));
        }
        let ticket = self.pass_on(Asker::Dump(conn), conn, ChainOp::DumpStart, OPEN_BYTES);
        let dump = Dump {
            name: ticket,
            asked: Some(ticket),
        };
        self.dumps.insert(conn, dump);
    }

    /// A reader has taken the last page, and wants the next one.
    pub(super) fn on_dump_next(&mut self, conn: ConnId) {
        // A dump that ended meanwhile has said so.
        let Some(dump) = self.dumps.get(&conn).map(|dump| dump.name) else {
            return;
        };
        let op = ChainOp::DumpNext { dump };
        let ticket = self.pass_on(Asker::Dump(conn), conn, op, OPEN_BYTES);
        if let Some(dump) = self.dumps.get_mut(&conn) {
            dump.asked = Some(ticket);
        }
    }

    pub(super) fn on_dump_answer(&mut self, conn: ConnId, body: AnswerBody) {
        let Some(dump) = self.dumps.get_mut(&conn) else {
            return;
        };
        dump.asked = None;
        let answer = match body {
            AnswerBody::DumpPage {
                revision,
                entries,
                more,
            } => Ok(DumpPage {
                revision,
                entries,
                more,
            }),
            AnswerBody::NoDump { reason } => Err(reason),
            _ => Err("the head's answer does not fit the request".to_owned()),
        };
        if !answer.as_ref().is_ok_and(|page| page.more) {
            self.dumps.remove(&conn);
        }
        self.out.dumps.push((conn, answer));
    }

    /// Ends a dump, if the connection reads one: the head may forget it.
    pub(super) fn end_dump(&mut self, conn: ConnId) -> bool {
        let Some(dump) = self.dumps.remove(&conn) else {
            return false;
        };
        if let Some(asked) = dump.asked {
            self.take_pending(asked);
        }
        if matches!(self.route, Route::Head(_)) {
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            let op = ChainOp::DumpEnd { dump: dump.name };
            self.out.requests.push(ChainRequest { ticket, conn, op });
        }
        true
    }

    /// Ends a dump that its reader still wants.
    pub(super) fn break_dump(&mut self, conn: ConnId, reason: &str) {
        if self.end_dump(conn) {
            self.out.dumps.push((conn, Err(reason.to_owned())));
        }
    }

    /// Ends all: what follows goes to another head, or to one that has forgotten them.
    pub(super) fn break_dumps(&mut self, reason: &str) {
        let conns: Vec<ConnId> = self.dumps.keys().copied().collect();
        for conn in conns {
            self.break_dump(conn, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Input, Output};
    use super::*;
    use kvservice_shared::chain::Answer;
    use kvservice_shared::ids::Epoch;

    const EPOCH: Epoch = Epoch { term: 0, number: 1 };
    const TIMEOUT_MS: u64 = 5_000;

    fn gateway() -> Gateway {
        let mut gateway = Gateway::new(Config {
            request_timeout_ms: TIMEOUT_MS,
            pending_bytes_max: 1024 * 1024,
            boot: 1,
        });
        gateway.step(0, Input::Route(Route::Head(EPOCH)));
        gateway
    }

    fn step(gateway: &mut Gateway, input: Input) -> Output {
        gateway.step(0, input);
        gateway.flush()
    }

    fn ops(out: &Output) -> Vec<&ChainOp> {
        out.requests.iter().map(|request| &request.op).collect()
    }

    fn page(more: bool) -> AnswerBody {
        AnswerBody::DumpPage {
            revision: Seq(7),
            entries: Vec::new(),
            more,
        }
    }

    fn answer(gateway: &mut Gateway, ticket: Ticket, body: AnswerBody) -> Output {
        step(
            gateway,
            Input::Answers(EPOCH, vec![Answer { ticket, body }]),
        )
    }

    /// Starts a dump; its name.
    fn start(gateway: &mut Gateway, conn: ConnId) -> Ticket {
        let out = step(gateway, Input::Dump(conn));
        assert_eq!(ops(&out), [&ChainOp::DumpStart]);
        out.requests[0].ticket
    }

    #[test]
    fn a_page_for_each_time_it_is_asked_for() {
        let mut gateway = gateway();
        let conn = ConnId(1);
        let dump = start(&mut gateway, conn);
        let out = answer(&mut gateway, dump, page(true));
        assert!(matches!(&out.dumps[..], [(ConnId(1), Ok(page))] if page.more));
        assert!(out.requests.is_empty(), "nobody has asked for more");

        let out = step(&mut gateway, Input::DumpNext(conn));
        assert_eq!(ops(&out), [&ChainOp::DumpNext { dump }]);
        let out = answer(&mut gateway, out.requests[0].ticket, page(false));
        assert!(matches!(&out.dumps[..], [(ConnId(1), Ok(page))] if !page.more));
        let out = step(&mut gateway, Input::Closed(conn));
        assert!(out.requests.is_empty(), "the head has forgotten it already");
        assert_eq!(gateway.unanswered(), 0);
    }

    #[test]
    fn another_route_ends_dumps_and_none_is_asked_for_again() {
        for asked in [true, false] {
            let mut gateway = gateway();
            let conn = ConnId(1);
            let dump = start(&mut gateway, conn);
            if !asked {
                answer(&mut gateway, dump, page(true));
            }
            let out = step(&mut gateway, Input::Route(Route::Head(EPOCH.next())));
            assert!(matches!(&out.dumps[..], [(ConnId(1), Err(_))]));
            assert_eq!(ops(&out), [&ChainOp::DumpEnd { dump }]);
            let out = step(&mut gateway, Input::DumpNext(conn));
            assert!(out.dumps.is_empty() && out.requests.is_empty());
            assert_eq!(gateway.unanswered(), 0);
        }
    }

    #[test]
    fn a_reader_that_goes_takes_its_dump_along() {
        let mut gateway = gateway();
        let conn = ConnId(1);
        let dump = start(&mut gateway, conn);
        let out = step(&mut gateway, Input::Closed(conn));
        assert_eq!(ops(&out), [&ChainOp::DumpEnd { dump }]);
        let out = answer(&mut gateway, dump, page(true));
        assert!(out.dumps.is_empty());
        assert_eq!(gateway.unanswered(), 0);
    }

    #[test]
    fn a_head_that_does_not_answer_ends_it() {
        let mut gateway = gateway();
        let dump = start(&mut gateway, ConnId(1));
        gateway.step(TIMEOUT_MS, Input::Tick);
        let out = gateway.flush();
        assert!(matches!(&out.dumps[..], [(ConnId(1), Err(_))]));
        assert_eq!(ops(&out), [&ChainOp::DumpEnd { dump }]);
    }

    #[test]
    fn only_so_many_at_one_time_and_none_without_a_head() {
        let mut gateway = gateway();
        for conn in 0..DUMPS_MAX as u64 {
            start(&mut gateway, ConnId(conn));
        }
        let late = ConnId(99);
        let out = step(&mut gateway, Input::Dump(late));
        assert!(matches!(&out.dumps[..], [(ConnId(99), Err(why))] if why.contains("already")));
        step(&mut gateway, Input::Closed(ConnId(0)));
        start(&mut gateway, late);

        step(
            &mut gateway,
            Input::Route(Route::Closed("no nodes".to_owned())),
        );
        let out = step(&mut gateway, Input::Dump(ConnId(100)));
        assert_eq!(out.dumps, [(ConnId(100), Err("no nodes".to_owned()))]);
    }

    #[test]
    fn what_the_head_answers_instead_ends_it() {
        let refusal = AnswerBody::NoDump {
            reason: "too many".to_owned(),
        };
        for (body, why) in [
            (refusal, "too many"),
            (AnswerBody::NoSession, "does not fit"),
        ] {
            let mut gateway = gateway();
            let dump = start(&mut gateway, ConnId(1));
            let out = answer(&mut gateway, dump, body);
            assert!(matches!(&out.dumps[..], [(ConnId(1), Err(told))] if told.contains(why)));
            assert_eq!(gateway.unanswered(), 0);
        }
    }

    #[test]
    fn a_dump_waits_for_no_head() {
        let mut gateway = gateway();
        gateway.step(0, Input::Route(Route::Wait));
        let out = step(&mut gateway, Input::Dump(ConnId(1)));
        assert!(out.requests.is_empty());
        assert!(matches!(&out.dumps[..], [(ConnId(1), Err(why))] if why.contains("try again")));
    }
}
