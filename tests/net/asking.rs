//! Requests and responses.

use std::time::Instant;

use runmesh::kernel::id::PeerId;
use runmesh::net::{NetError, RequestId, Why};
use runmesh::wire::limits::{MAX_REQUEST, MAX_RESPONSE};

use crate::node::{Seen, pair, timings};

#[tokio::test]
async fn every_request_has_its_end() {
    let (first, mut second) = pair().await;
    let peer = first.peer();
    assert_eq!(second.ask(peer, 1, b"echo").await, Ok(b"echo".to_vec()));
    assert_eq!(second.ask(peer, 2, b"").await, Ok(Vec::new()));
    assert_eq!(second.ask(peer, 3, &vec![1; MAX_REQUEST]).await, Ok(vec![1; MAX_REQUEST]));
    assert_eq!(second.ask(peer, 4, b"largest").await.map(|bytes| bytes.len()), Ok(MAX_RESPONSE));
    assert_eq!(second.ask(peer, 5, b"too large").await, Err(Why::Refused));
    assert_eq!(second.ask(peer, 6, b"refuse").await, Err(Why::Refused));
    let nobody = PeerId::from_public_key([9; 32]);
    assert_eq!(second.ask(nobody, 7, b"echo").await, Err(Why::NotConnected));
    let asked = Instant::now();
    assert_eq!(second.ask(peer, 8, b"wait").await, Err(Why::Timeout));
    assert!(asked.elapsed() >= timings().request);
    let error = second.client.request(peer, RequestId(9), vec![0; MAX_REQUEST + 1]).await;
    assert!(matches!(error, Err(NetError::TooLarge { .. })));
}

#[tokio::test]
async fn requests_cross_without_waiting_for_each_other() {
    let (first, mut second) = pair().await;
    let peer = first.peer();
    second.client.request(peer, RequestId(0), b"wait".to_vec()).await.expect("runs");
    for id in 1..=20 {
        second.client.request(peer, RequestId(id), id.to_be_bytes().to_vec()).await.expect("runs");
    }
    let mut answered = 0;
    second
        .until("twenty answers", |seen| {
            if let Seen::Response { id, bytes } = seen {
                assert_eq!(bytes, &id.0.to_be_bytes());
                answered += 1;
            }
            assert!(!matches!(seen, Seen::Unanswered { .. }), "{seen:?}");
            (answered == 20).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_lost_peer_ends_what_was_asked_of_it() {
    let (first, mut second) = pair().await;
    let peer = first.peer();
    second.client.request(peer, RequestId(1), b"wait".to_vec()).await.expect("runs");
    // It has been read, so the request is there too.
    assert_eq!(second.ask(peer, 2, b"echo").await, Ok(b"echo".to_vec()));
    drop(first);
    let why = second
        .until("the end", |seen| match seen {
            Seen::Unanswered { id: RequestId(1), why } => Some(why.clone()),
            _ => None,
        })
        .await;
    assert!(matches!(why, Why::Lost | Why::Broken(_)), "{why:?}");
}
