//! A member that takes its time: it asks and never reads the answers, sends requests that never end, answers without end,
//! and listens to gossip without reading a byte of it.

use std::io;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use libp2p::futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, Codec, Event, Message, ProtocolSupport};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{StreamProtocol, SwarmBuilder, noise, ping, tcp, yamux};
use runmesh::kernel::io::Request;
use runmesh::net::Multiaddr;
use runmesh::wire::limits::MAX_REQUEST;
use runmesh::wire::request;
use runmesh::wire::ticket::Invitation;
use tokio::task::JoinHandle;

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);
/// As many connections, and requests on each, as a node lets a peer have.
const CONNECTIONS: usize = 4;
const REQUESTS: usize = 60;

#[derive(Clone, Debug)]
enum Way {
    /// Well asked, and the answer is never read.
    Deaf(Vec<u8>),
    /// A byte now and then.
    Trickle,
    /// All but the last byte.
    Unfinished,
    /// What a gossip stream begins with, and nothing more.
    Listen(Vec<u8>),
}

#[derive(Clone, Default)]
struct Slow;

async fn wait<T>() -> io::Result<T> {
    tokio::time::sleep(NEVER).await;
    Err(io::ErrorKind::TimedOut.into())
}

/// Says that very much comes, and sends a byte of it now and then.
async fn trickle<T: AsyncWrite + Unpin>(io: &mut T) -> io::Result<()> {
    io.write_all(&(MAX_REQUEST as u32).to_be_bytes()).await?;
    loop {
        io.write_all(&[0x0a]).await?;
        io.flush().await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

impl Codec for Slow {
    type Protocol = StreamProtocol;
    type Request = Way;
    type Response = ();

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, at: &StreamProtocol, io: &mut T) -> io::Result<Way> {
        if at.as_ref().ends_with("gossip") {
            return wait().await;
        }
        let mut length = [0; 4];
        io.read_exact(&mut length).await?;
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        io.read_exact(&mut bytes).await?;
        Ok(Way::Deaf(bytes))
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<()> {
        wait().await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        way: Way,
    ) -> io::Result<()> {
        match way {
            Way::Deaf(bytes) => io.write_all(&[&(bytes.len() as u32).to_be_bytes(), bytes.as_slice()].concat()).await?,
            Way::Listen(bytes) => io.write_all(&bytes).await?,
            Way::Trickle => trickle(io).await?,
            Way::Unfinished => {
                io.write_all(&(MAX_REQUEST as u32).to_be_bytes()).await?;
                io.write_all(&vec![0x0a; MAX_REQUEST - 1]).await?;
                io.flush().await?;
                return wait().await;
            }
        }
        io.flush().await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        (): (),
    ) -> io::Result<()> {
        trickle(io).await
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    ask: request_response::Behaviour<Slow>,
    gossip: request_response::Behaviour<Slow>,
    ping: ping::Behaviour,
}

/// The first message of a gossip stream: what it listens to (gossipsub's `RPC.subscriptions`).
fn subscriptions(topics: [String; 2]) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
    let one = |topic: &String| field(0x0a, &[&[0x08, 1], field(0x12, topic.as_bytes()).as_slice()].concat());
    let all: Vec<u8> = topics.iter().flat_map(one).collect();
    [&[all.len() as u8 | 0x80, (all.len() >> 7) as u8], all.as_slice()].concat()
}

/// Begins all of that with the node that invited it, as the member that has this key. It ends when that is aborted.
pub(crate) fn begin(seed: [u8; 32], invitation: &Invitation) -> JoinHandle<()> {
    let name = |what: &str| format!("/runmesh/1/{}/{what}", invitation.mesh.short());
    let protocol = |what: &str| StreamProtocol::try_from_owned(name(what)).expect("a protocol");
    let config = || request_response::Config::default().with_request_timeout(NEVER).with_max_concurrent_streams(10_000);
    let behaviour = Behaviour {
        ask: request_response::Behaviour::new([(protocol("ask"), ProtocolSupport::Full)], config()),
        gossip: request_response::Behaviour::new([(protocol("gossip"), ProtocolSupport::Full)], config()),
        // It is there, as far as pings tell.
        ping: ping::Behaviour::default(),
    };
    let key = Keypair::ed25519_from_bytes(SigningKey::from_bytes(&seed).to_bytes()).expect("a key");
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(|_| Ok(behaviour))
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(NEVER))
        .build();
    let address: Multiaddr = invitation.addresses[0].parse().expect("an address");
    let kernel = runmesh::net::peer_of(&address).expect("a peer");
    let target = libp2p::PeerId::from_bytes(&kernel.to_bytes()).expect("a peer");
    let dial =
        move || DialOpts::peer_id(target).condition(PeerCondition::Always).addresses(vec![address.clone()]).build();
    for _ in 0..CONNECTIONS {
        swarm.dial(dial()).expect("dials");
    }
    let sync = request::seal(&Request::Sync { vector: Default::default(), want: Default::default() }).expect("seals");
    let listen = subscriptions([name("entries"), name("presence")]);
    let ways = move |n: usize| match n % 4 {
        0 => Way::Trickle,
        1 => Way::Unfinished,
        _ => Way::Deaf(sync.clone()),
    };
    tokio::spawn(async move {
        let (mut asked, mut held) = (0, Vec::new());
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => {
                    swarm.behaviour_mut().gossip.send_request(&target, Way::Listen(listen.clone()));
                    for _ in 0..REQUESTS {
                        asked += 1;
                        swarm.behaviour_mut().ask.send_request(&target, ways(asked));
                    }
                }
                SwarmEvent::ConnectionClosed { .. } => drop(swarm.dial(dial())),
                // What the node has given up is begun again.
                SwarmEvent::Behaviour(BehaviourEvent::Ask(Event::OutboundFailure { .. })) => {
                    asked += 1;
                    swarm.behaviour_mut().ask.send_request(&target, ways(asked));
                }
                SwarmEvent::Behaviour(BehaviourEvent::Ask(Event::Message {
                    message: Message::Request { channel, .. },
                    ..
                })) => {
                    // Some are answered without end, some never.
                    if held.len() % 2 == 0 {
                        let _ = swarm.behaviour_mut().ask.send_response(channel, ());
                        held.push(None);
                    } else {
                        held.push(Some(channel));
                    }
                }
                _ => {}
            }
        }
    })
}
