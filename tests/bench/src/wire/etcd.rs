//! etcd: gRPC, each request a call of its own on one HTTP/2 connection.
//!
//! The messages are etcd's, version 3, as far as they are needed here; fields that nobody reads are left out, which
//! protocol buffers allow.

use super::{Request, Target, Wire};
use crate::stats::Answer;
use crate::work::{KEY_BYTES, Op, push_key, value};
use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::uri::PathAndQuery;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// A call that takes longer than this has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes in one transaction, of the 1.5 MiB that etcd takes.
const TXN_BYTES: usize = 1024 * 1024;
/// Operations in one transaction, of the 128 that etcd takes.
const TXN_OPS: usize = 100;

type Call = Pin<Box<dyn Future<Output = (u64, Answer)>>>;

/// One connection to a member.
pub struct Etcd {
    channel: Channel,
    value: Bytes,
    calls: FuturesUnordered<Call>,
}

impl Wire for Etcd {
    const BATCHES: bool = false;

    fn fill_max(target: &Target) -> u16 {
        let one = target.value_bytes + KEY_BYTES + 32;
        (TXN_BYTES / one).clamp(1, TXN_OPS) as u16
    }

    async fn open(target: &Target) -> Result<Etcd> {
        Ok(Etcd {
            channel: connect(target.address).await?,
            value: value(target.value_bytes).into(),
            calls: FuturesUnordered::new(),
        })
    }

    async fn send(&mut self, requests: &[Request]) -> Result<()> {
        for &Request { tag, op, key } in requests {
            let (channel, value) = (self.channel.clone(), self.value.clone());
            self.calls.push(Box::pin(async move {
                (tag, perform(channel, op, key, value).await)
            }));
        }
        Ok(())
    }

    async fn receive(&mut self, answers: &mut Vec<(u64, Answer)>) -> Result<()> {
        if let Some(answer) = self.calls.next().await {
            answers.push(answer);
        }
        Ok(())
    }
}

async fn perform(channel: Channel, op: Op, key: u64, value: Bytes) -> Answer {
    let put = |key: u64| PutRequest {
        key: name(key),
        value: value.clone(),
    };
    let result = match op {
        Op::Get => {
            let request = RangeRequest { key: name(key) };
            let response: Result<RangeResponse, _> =
                call(channel, "/etcdserverpb.KV/Range", request).await;
            response.map(|response| !response.kvs.is_empty())
        }
        Op::Set => {
            let response: Result<PutResponse, _> =
                call(channel, "/etcdserverpb.KV/Put", put(key)).await;
            response.map(|_| true)
        }
        Op::TestSet => {
            let compare = Compare::value_equals(name(key), value.clone());
            txn(channel, vec![compare], vec![put(key)]).await
        }
        Op::Fill(count) => {
            let puts = (key..).take(count.into()).map(put).collect();
            txn(channel, Vec::new(), puts).await
        }
    };
    match result {
        Ok(true) => Answer::Done,
        Ok(false) => Answer::Missed,
        Err(status) => Answer::Error(format!("{}: {}", status.code(), status.message())),
    }
}

async fn txn(
    channel: Channel,
    compare: Vec<Compare>,
    puts: Vec<PutRequest>,
) -> Result<bool, tonic::Status> {
    let success = puts.into_iter().map(|put| RequestOp {
        request_put: Some(put),
    });
    let request = TxnRequest {
        compare,
        success: success.collect(),
    };
    let response: TxnResponse = call(channel, "/etcdserverpb.KV/Txn", request).await?;
    Ok(response.succeeded)
}

fn name(key: u64) -> Bytes {
    let mut name = Vec::with_capacity(KEY_BYTES);
    push_key(&mut name, key);
    name.into()
}

async fn connect(address: SocketAddr) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .timeout(CALL_TIMEOUT);
    endpoint
        .connect()
        .await
        .with_context(|| format!("cannot connect to etcd at {address}"))
}

async fn call<Q, A>(channel: Channel, path: &'static str, request: Q) -> Result<A, tonic::Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut client = Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| tonic::Status::unavailable(format!("the connection is lost: {error}")))?;
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let path = PathAndQuery::from_static(path);
    let response = client
        .unary(tonic::Request::new(request), path, codec)
        .await?;
    Ok(response.into_inner())
}

/// Whether the member at `address` leads; `None` while it knows of no leader.
///
/// # Errors
/// It cannot be asked.
pub async fn leads(address: SocketAddr) -> Result<Option<bool>> {
    let channel = connect(address).await?;
    let request = StatusRequest {};
    let status: StatusResponse = call(channel, "/etcdserverpb.Maintenance/Status", request).await?;
    let own = status.header.unwrap_or_default().member_id;
    Ok((status.leader != 0).then_some(status.leader == own))
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// A read of one key; `serializable`, left out, is false: the read is linearizable.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<RequestOp>,
}

/// Its `result`, left out, is 0: equal.
#[derive(Clone, PartialEq, prost::Message)]
struct Compare {
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "bytes", tag = "3")]
    key: Bytes,
    /// One of several in etcd's definition, of which this is the only one used here.
    #[prost(bytes = "bytes", optional, tag = "7")]
    value: Option<Bytes>,
}

impl Compare {
    fn value_equals(key: Bytes, value: Bytes) -> Compare {
        /// `CompareTarget::VALUE`.
        const VALUE: i32 = 3;
        Compare {
            target: VALUE,
            key,
            value: Some(value),
        }
    }
}

/// One of several in etcd's definition, of which a put is the only one used here.
#[derive(Clone, PartialEq, prost::Message)]
struct RequestOp {
    #[prost(message, optional, tag = "2")]
    request_put: Option<PutRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TxnResponse {
    #[prost(bool, tag = "2")]
    succeeded: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}
