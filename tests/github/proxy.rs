//! GitHub behind a proxy, as in many companies' networks.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::*;

/// A proxy that writes down what it is asked for, opens the tunnel, and gives what comes through it.
struct Tunnel {
    address: String,
    asked: std::thread::JoinHandle<Option<(String, Vec<u8>)>>,
}

impl Tunnel {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked =
            std::thread::spawn(move || listener.incoming().flatten().find_map(|stream| Self::serve(stream).ok()));
        Self { address, asked }
    }

    /// The question, and the first bytes behind it.
    fn serve(mut stream: TcpStream) -> std::io::Result<(String, Vec<u8>)> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let mut hello = vec![0; 4_096];
        let length = stream.read(&mut hello)?;
        hello.truncate(length);
        Ok((String::from_utf8_lossy(&head).into_owned(), hello))
    }
}

fn through(proxy: &str, except: &str, api: &str) -> Github {
    let credentials = Credentials::Token(Secret::new("t0p-secret"));
    let api = api.parse().expect("an address");
    Github::through(Proxy::at(proxy, except), api, credentials, Selection::default()).expect("a client")
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_tunnel_and_sees_nothing_of_what_goes_through() {
    let tunnel = Tunnel::open();
    let github = through(&format!("http://user:word@{}", tunnel.address), "", "https://api.github.com");
    let looked = look(&github, &octo(), Memory::default()).await;
    let error = looked.outcome.expect_err("the proxy hangs up").to_string();
    assert!(!error.contains("word") && !error.contains("t0p-secret"), "{error}");
    let (asked, hello) =
        tokio::task::spawn_blocking(|| tunnel.asked.join()).await.expect("it ends").expect("it serves").expect("asked");
    assert!(asked.starts_with("CONNECT api.github.com:443 HTTP/1.1\r\n"), "{asked}");
    // `user:word` in base64.
    assert!(asked.to_lowercase().contains("proxy-authorization: basic dxnlcjp3b3jk"), "{asked}");
    assert!(!asked.contains("t0p-secret"));
    // The beginning of TLS, to that host, and no token in it.
    assert_eq!(hello.first(), Some(&22), "{hello:?}");
    let holds = |text: &str| hello.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("api.github.com") && !holds("t0p-secret"));
}

#[tokio::test]
async fn who_is_in_no_proxy_and_who_has_no_tls_is_reached_straight() {
    // Nothing listens there: whoever asks it fails.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let fake = Fake::start(world(1));
    good(look(&through(&nobody, "", &fake.api()), &octo(), Memory::default()).await);
    let reached = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = reached.local_addr().expect("an address");
    let straight = through(&nobody, "127.0.0.1, example.org", &format!("https://{host}"));
    let connected = std::thread::spawn(move || reached.accept().map(drop));
    assert!(look(&straight, &octo(), Memory::default()).await.outcome.is_err(), "it speaks no TLS");
    connected.join().expect("it ends").expect("it was connected to");
    let proxied = look(&through(&nobody, "example.org", &format!("https://{host}")), &octo(), Memory::default()).await;
    let error = proxied.outcome.expect_err("no proxy there").to_string();
    assert!(error.contains("through the proxy 127.0.0.1"), "{error}");
    let other = look(&through("socks5://127.0.0.1:1", "", "https://api.github.com"), &octo(), Memory::default()).await;
    assert!(other.outcome.expect_err("another kind").to_string().contains("begins with http://"));
}
