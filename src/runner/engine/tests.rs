//! An engine that is slow to let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::*;

/// What the one container there is marked with.
const MARK: &str = "rm1-task";

/// Answers one request as an engine with one container, which goes when it was told to so many times.
async fn answer(mut stream: UnixStream, told: &AtomicUsize, enough: usize) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let is_here = told.load(Ordering::SeqCst) < enough;
    let (status, body) = match request.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["GET", path] if path.contains("/containers/json") && is_here => {
            ("200 OK", format!("[{{\"Id\":\"c\",\"Labels\":{{\"{LABEL_TASK}\":\"{MARK}\"}}}}]"))
        }
        ["GET", path] if path.contains("/volumes") => ("200 OK", "{\"Volumes\":[]}".to_owned()),
        ["GET", _] => ("200 OK", "[]".to_owned()),
        ["DELETE", path] if path.contains("/containers/c") => match told.fetch_add(1, Ordering::SeqCst) + 1 < enough {
            true => ("409 Conflict", "{\"message\":\"its removal is in progress\"}".to_owned()),
            false => ("204 No Content", String::new()),
        },
        ref other => panic!("{other:?}"),
    };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(text.as_bytes()).await;
}

/// What is left of it after that patience, and how often it was told to go.
async fn cleared(enough: usize, patience: Duration) -> (Vec<String>, usize) {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let counted = told.clone();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            answer(stream, &counted, enough).await;
        }
    });
    let left = Engine { socket, version: String::new() }.clear(MARK, patience).await.unwrap();
    server.abort();
    (left, told.load(Ordering::SeqCst))
}

#[tokio::test]
async fn what_an_engine_is_still_taking_away_is_waited_for_and_told_of_when_it_stays() {
    assert_eq!(cleared(1, Duration::ZERO).await, (Vec::new(), 1));
    assert_eq!(cleared(3, Duration::from_secs(60)).await, (Vec::new(), 3));
    let (left, told) = cleared(usize::MAX, Duration::ZERO).await;
    assert_eq!((left, told), (vec!["the container engine is still taking something of it away".to_owned()], 1));
}
