//! Those who do not keep to the rules.

use std::time::Duration;

use libp2p::futures::StreamExt as _;
use libp2p::futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::request_response::{self, Codec, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent, dummy};
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, gossipsub, noise, tcp, yamux};
use runmesh::net::Multiaddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::node::{MESH, Node, PATIENCE, Seen, members, pair, settings};

fn socket(address: &Multiaddr) -> String {
    let text = address.to_string();
    let port = text.split('/').nth(4).expect("a port");
    format!("127.0.0.1:{port}")
}

#[tokio::test]
async fn raw_garbage_does_no_harm() {
    let (first, mut second) = pair().await;
    let target = socket(&first.client.addresses().await.expect("runs")[0]);
    let mut streams = Vec::new();
    for number in 0..40_u8 {
        let mut stream = TcpStream::connect(&target).await.expect("connects");
        match number % 4 {
            // Says nothing.
            0 => {}
            1 => stream.write_all(&vec![number; 70_000]).await.unwrap_or_default(),
            // Negotiates, then stops in the middle of the handshake.
            2 => stream.write_all(b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20").await.expect("writes"),
            _ => stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("writes"),
        }
        streams.push(stream);
    }
    // While all of them are open, members are served.
    let peer = first.peer();
    assert_eq!(second.ask(peer, 1, b"echo").await, Ok(b"echo".to_vec()));
    first.publish(b"hello").await;
    second.gossip(b"hello").await;
    let mut third = Node::start(settings(3));
    third.client.dial(first.client.addresses().await.expect("runs")[0].clone()).await.expect("dials");
    third.connected(peer).await;
    // And in the end all of them are closed.
    for mut stream in streams {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open");
    }
    assert!(!second.peers().await.is_empty());
}

#[tokio::test]
async fn who_connects_and_says_nothing_keeps_out_nobody_from_elsewhere() {
    let mut first = Node::start(settings(1));
    let address = first.address().await;
    let target = socket(&address).parse().expect("an address");
    let mut silent = Vec::new();
    // More than may be shaking hands in all, from another network than the one this host is in.
    for _ in 0..200 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.9.1:0".parse().expect("an address")).expect("binds");
        silent.push(socket.connect(target).await.expect("connects"));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let second = Node::start(settings(2));
    second.client.dial(address).await.expect("there is room");
    first.connected(second.peer()).await;
    drop(silent);
}

/// A swarm that this test steers itself.
fn swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(|_| Ok(behaviour))
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}

#[tokio::test]
async fn a_peer_that_never_speaks_is_turned_away() {
    let mut node = Node::start(settings(1));
    let address = node.address().await;
    let mut silent = swarm(dummy::Behaviour);
    silent.dial(address).expect("dials");
    let closed = async {
        loop {
            if let SwarmEvent::ConnectionClosed { .. } = silent.select_next_some().await {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("it is turned away");
    assert!(node.peers().await.is_empty());
    assert_eq!(node.client.counters().turned_away, 1);
}

/// Requests that are not what they claim to be.
#[derive(Clone, Default)]
struct Liar;

impl Codec for Liar {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> std::io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> std::io::Result<()> {
        io.write_all(&bytes).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        _: Vec<u8>,
    ) -> std::io::Result<()> {
        io.write_all(&u32::MAX.to_be_bytes()).await?;
        io.write_all(&[7; 1000]).await
    }
}

#[derive(NetworkBehaviour)]
struct Hostile {
    gossip: gossipsub::Behaviour,
    ask: request_response::Behaviour<Liar>,
}

/// Speaks the mesh's protocols, badly.
fn hostile() -> Swarm<Hostile> {
    let name = |what: &str| format!("/runmesh/1/{}/{what}", MESH.short());
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id(name("gossip"), gossipsub::Version::V1_1)
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .max_transmit_size(10_000_000)
        .build()
        .expect("a configuration");
    let mut gossip = gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, config).expect("a behaviour");
    for topic in ["entries", "presence"] {
        gossip.subscribe(&gossipsub::IdentTopic::new(name(topic))).expect("subscribes");
    }
    let ask = StreamProtocol::try_from_owned(name("ask")).expect("a protocol");
    let ask = request_response::Behaviour::new([(ask, ProtocolSupport::Full)], request_response::Config::default());
    swarm(Hostile { gossip, ask })
}

#[tokio::test]
async fn a_liar_harms_only_itself() {
    let (mut first, mut second) = pair().await;
    let mut liar = hostile();
    let peer = runmesh::kernel::id::PeerId::from_bytes(&liar.local_peer_id().to_bytes()).expect("ed25519");
    let mut welcome = members();
    welcome.insert(peer);
    first.client.welcome(welcome).await.expect("runs");
    let victim = libp2p::PeerId::from_bytes(&first.peer().to_bytes()).expect("a peer");
    liar.dial(first.client.addresses().await.expect("runs")[0].clone()).expect("dials");
    let lying = tokio::spawn(async move {
        let topic = |what: &str| gossipsub::IdentTopic::new(format!("/runmesh/1/{}/{what}", MESH.short()));
        let mut round = 0_u32;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                _ = liar.select_next_some() => {}
                _ = tick.tick() => {
                    round += 1;
                    let behaviour = liar.behaviour_mut();
                    // Larger than allowed, and with a length that its bytes do not have.
                    let _ = behaviour.gossip.publish(topic("entries"), [&round.to_be_bytes()[..], &[0; 300_000]].concat());
                    let _ = behaviour.gossip.publish(topic("presence"), [b"bad".as_slice(), &round.to_be_bytes()].concat());
                    for lie in [&[0xff; 40][..], &[0, 0, 1], &[0, 4, 0, 1, 9], b""] {
                        behaviour.ask.send_request(&victim, lie.to_vec());
                    }
                }
            }
        }
    });
    first.connected(peer).await;
    // Its answers are lies too.
    for id in 1..5 {
        let answer = first.ask(peer, id, b"what?").await;
        assert!(answer.is_err(), "{answer:?}");
    }
    for id in 1..50 {
        assert_eq!(second.ask(first.peer(), id, b"echo").await, Ok(b"echo".to_vec()));
        first.publish(format!("word {id}").as_bytes()).await;
        second.gossip(format!("word {id}").as_bytes()).await;
    }
    // Nothing of it was passed on to the second, which it does not know.
    let bad = |seen: &Seen| matches!(seen, Seen::Gossip { bytes, .. } if bytes.starts_with(b"bad"));
    second.publish(b"end").await;
    first.publish(b"the end").await;
    second
        .until("the end", |seen| {
            assert!(!bad(seen), "{seen:?}");
            matches!(seen, Seen::Gossip { bytes, .. } if bytes == b"the end").then_some(())
        })
        .await;
    lying.abort();
    first.disconnected(peer).await;
}
