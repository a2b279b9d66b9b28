//! The link to the front-end: over the network for a back-end, in memory for variation 1.

use super::{LinkSender, NODE_PATH, Queue, Receive, dial, link, pump};
use crate::runtime::Input;
use kvservice_shared::chain::{ChainOp, FromNode, ToNode};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Answers that wait to be sent, in bytes: beyond that no more requests are read.
const ANSWERS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a read's answer counts as from its request's arrival until the replica has it and the answer itself is
/// counted. Else every read that is on its way would be answered before the first answer counts, and a few
/// clients that ask for large values and take none would fill the memory.
const READ_BYTES_ASSUMED: usize = 32 * 1024;
/// A front-end says something several times in each failure time-out. One that is silent for this long is gone
/// without a word. Less than the default `--grace`: a front-end that lost its directory waits so long for nodes
/// with data before it founds another cluster, and a node must have noticed by then that its link is dead.
const SILENCE_MAX: Duration = Duration::from_secs(7);
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(250);
/// A link that ends earlier was most likely refused: the next wait is a longer one.
const LASTED: Duration = Duration::from_secs(1);

/// Where the front-end is.
#[derive(Debug)]
pub enum FrontEnd {
    /// At this `HOST:PORT`.
    At(String),
    /// In this process.
    Here {
        /// What it says.
        from: mpsc::UnboundedReceiver<ToNode>,
        /// What is said to it.
        to: mpsc::UnboundedSender<FromNode>,
        /// Bytes of answers in `to`: whoever receives them takes them off, by [`answer_bytes`].
        answers: Queue,
    },
}

/// What a message counts for in the answers that wait, in bytes, about.
#[must_use]
pub fn answer_bytes(message: &FromNode) -> usize {
    match message {
        FromNode::Answers { answers, .. } => answers.iter().map(|a| a.body.bytes()).sum(),
        _ => 0,
    }
}

/// The sending half.
#[derive(Debug)]
pub enum FrontEndSender {
    /// Over the network.
    Link(LinkSender),
    /// In this process.
    Here(mpsc::UnboundedSender<FromNode>, Queue),
}

impl FrontEndSender {
    /// Hands a message over.
    pub fn send(&self, message: FromNode) {
        match self {
            FrontEndSender::Link(link) => {
                link.send(&message);
            }
            FrontEndSender::Here(to, answers) => {
                answers.add(answer_bytes(&message));
                let _ = to.send(message);
            }
        }
    }
}

/// Keeps the link until the inputs' receiver is gone.
pub async fn keep_front_end(front_end: FrontEnd, inputs: mpsc::Sender<Input>) {
    match front_end {
        FrontEnd::At(address) => dial_for_ever(&address, inputs).await,
        FrontEnd::Here {
            mut from,
            to,
            answers,
        } => {
            let sender = FrontEndSender::Here(to, answers.clone());
            if inputs
                .send(Input::FrontEndUp {
                    generation: 1,
                    sender,
                })
                .await
                .is_err()
            {
                return;
            }
            let mut receive = FromFrontEnd {
                generation: 1,
                answers,
                inputs: inputs.clone(),
            };
            while let Some(message) = from.recv().await {
                if !receive.receive(message).await {
                    return;
                }
            }
            let _ = inputs.send(Input::FrontEndDown { generation: 1 }).await;
        }
    }
}

async fn dial_for_ever(address: &str, inputs: mpsc::Sender<Input>) {
    let mut wait = RETRY_MIN;
    let mut said = false;
    for generation in 1.. {
        let error = match dial(address, NODE_PATH).await {
            Ok(socket) => {
                tracing::info!(front_end = address, "connected to the front-end");
                said = false;
                let since = Instant::now();
                let (sender, link) = link();
                let answers = sender.queue().clone();
                let sender = FrontEndSender::Link(sender);
                if inputs
                    .send(Input::FrontEndUp { generation, sender })
                    .await
                    .is_err()
                {
                    return;
                }
                let receive = FromFrontEnd {
                    generation,
                    answers,
                    inputs: inputs.clone(),
                };
                let error = pump(socket, link, receive, Some(SILENCE_MAX)).await;
                if since.elapsed() > LASTED {
                    wait = RETRY_MIN;
                }
                if inputs
                    .send(Input::FrontEndDown { generation })
                    .await
                    .is_err()
                {
                    return;
                }
                error
            }
            Err(error) => error,
        };
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(front_end = address, %error, "no link to the front-end; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = inputs.closed() => return,
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Bytes in the queue of answers, until this is dropped.
#[derive(Debug)]
pub struct Held {
    answers: Queue,
    bytes: usize,
}

impl Held {
    fn new(answers: &Queue, bytes: usize) -> Held {
        answers.add(bytes);
        let answers = answers.clone();
        Held { answers, bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.answers.sub(self.bytes);
    }
}

fn reads(message: &ToNode) -> usize {
    let ToNode::Requests { requests, .. } = message else {
        return 0;
    };
    let is_read = |op: &ChainOp| {
        matches!(
            op,
            ChainOp::Get { .. }
                | ChainOp::List { .. }
                | ChainOp::DumpStart
                | ChainOp::DumpNext { .. }
        )
    };
    requests
        .iter()
        .filter(|request| is_read(&request.op))
        .count()
}

struct FromFrontEnd {
    generation: u64,
    answers: Queue,
    inputs: mpsc::Sender<Input>,
}

impl Receive<ToNode> for FromFrontEnd {
    async fn receive(&mut self, message: ToNode) -> bool {
        let requests = matches!(message, ToNode::Requests { .. });
        let generation = self.generation;
        let held = Held::new(&self.answers, reads(&message) * READ_BYTES_ASSUMED);
        if self
            .inputs
            .send(Input::FromFrontEnd {
                generation,
                message,
                held,
            })
            .await
            .is_err()
        {
            return false;
        }
        if requests {
            // A front-end that does not take its answers gets no more of them.
            self.answers.below(ANSWERS_BYTES_MAX).await;
        }
        true
    }
}
