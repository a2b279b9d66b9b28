//! Told to stop, a front-end answers what it has and says goodbye.

use super::rig::*;
use kvservice_server::config::EdgeConfig;
use kvservice_server::edge::ToConn;
use std::time::Duration;
use tokio::net::TcpStream;

#[tokio::test]
async fn what_is_in_flight_is_answered_and_then_all_are_closed_with_1001() {
    let (rig, mut gateway) = rig(EdgeConfig::default()).await;
    let mut idle = connect(rig.addr).await;
    opened(&mut gateway).await;
    let mut busy = connect(rig.addr).await;
    let (busy_conn, to) = opened(&mut gateway).await;
    send(&mut busy, r#"{"id":1,"op":"get","key":"k"}"#).await;
    let (_, asked) = requests(&mut gateway).await;

    rig.stop.stop();
    assert_eq!(close_frame(&mut idle).await.0, 1001);
    drop(idle);
    assert_ne!(closed(&mut gateway).await, busy_conn);
    assert!(
        TcpStream::connect(rig.addr).await.is_err(),
        "nobody is accepted any more"
    );
    // Asked too late: it is not read.
    send(&mut busy, r#"{"id":2,"op":"get","key":"k"}"#).await;
    assert!(to.send(ToConn::Responses(vec![got(&asked[0], "answered")])));
    assert!(receive(&mut busy).await.contains("answered"));
    assert_eq!(close_frame(&mut busy).await.0, 1001);
    drop(busy);
    assert_eq!(closed(&mut gateway).await, busy_conn);
    soon("serve to return", rig.served).await.unwrap();
    assert!(gateway.try_recv().is_err(), "nothing came after");
}

#[tokio::test]
async fn an_answer_that_never_comes_is_waited_for_but_not_for_ever() {
    let config = EdgeConfig {
        drain_timeout: Duration::from_millis(200),
        ..EdgeConfig::default()
    };
    let (rig, mut gateway) = rig(config).await;
    let mut ws = connect(rig.addr).await;
    let (_, _to) = opened(&mut gateway).await;
    send(&mut ws, r#"{"id":1,"op":"get","key":"k"}"#).await;
    requests(&mut gateway).await;
    rig.stop.stop();
    let (code, reason) = close_frame(&mut ws).await;
    assert_eq!(code, 1001);
    assert!(reason.contains("unknown outcome"), "{reason}");
    drop(ws);
    soon("serve to return", rig.served).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_say_goodbye_does_not_hold_up_the_stop() {
    let config = EdgeConfig {
        drain_timeout: Duration::from_millis(200),
        close_timeout: Duration::from_millis(200),
        ..EdgeConfig::default()
    };
    let (rig, _seen) = echo_rig(config).await;
    let _mute = connect_raw(rig.addr).await;
    let _half_open = TcpStream::connect(rig.addr).await.unwrap();
    rig.stop.stop();
    soon("serve to return", rig.served).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_is_gone_closes_its_connections() {
    let (rig, mut gateway) = rig(EdgeConfig::default()).await;
    let mut ws = connect(rig.addr).await;
    let (_, to) = opened(&mut gateway).await;
    drop((gateway, to));
    assert_eq!(close_frame(&mut ws).await.0, 1001);
}
