//! A TCP proxy in front of every port, which does to a connection what the rules of its two ends say.

use super::dialler::dialler_of;
use super::network::{Flow, Network, Place, Rules};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const BUFFER_BYTES: usize = 64 * 1024;
/// Before another try where a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who connects to a proxy.
#[derive(Clone, Copy, Debug)]
pub enum Dialler {
    /// This one alone knows the address.
    Known(Place),
    /// Whichever process the kernel says.
    AnyProcess,
}

/// Opens a proxy for `target`, in front of `to`; the address to give to those who dial.
///
/// # Panics
/// Where there is no free port.
pub async fn open(
    network: &Arc<Network>,
    from: Dialler,
    to: Place,
    target: SocketAddr,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("there is a free port");
    let address = listener.local_addr().expect("a listener has an address");
    let network = Arc::clone(network);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let network = Arc::clone(&network);
                    tokio::spawn(async move {
                        // How a connection ends is for its two ends to see.
                        let _ = connection(&network, from, to, target, stream, peer).await;
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    });
    address
}

/// Serves one connection. Where this ends with an error, both sockets are reset.
async fn connection(
    network: &Network,
    from: Dialler,
    to: Place,
    target: SocketAddr,
    accepted: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    // What is not ended in order is reset when it is dropped.
    accepted.set_zero_linger()?;
    accepted.set_nodelay(true)?;
    let from = match from {
        Dialler::Known(place) => place,
        // None: it has died since.
        Dialler::AnyProcess => dialler_of(peer, &network.processes()).ok_or_else(reset)?,
    };
    let mut there = Way::new(network, from, to);
    let mut back = Way::new(network, to, from);
    there.until_open().await?;
    let dialled = TcpStream::connect(target).await?;
    dialled.set_zero_linger()?;
    dialled.set_nodelay(true)?;
    let (mut accepted, mut dialled) = (accepted, dialled);
    // Borrowed halves: owned ones end their way in order when they are dropped.
    let (accepted_read, accepted_write) = accepted.split();
    let (dialled_read, dialled_write) = dialled.split();
    let mut cut = (there.clone(), back.clone());
    let carried = async {
        tokio::try_join!(
            carry(accepted_read, dialled_write, &mut there),
            carry(dialled_read, accepted_write, &mut back)
        )
    };
    tokio::select! {
        carried = carried => carried.map(|_| ()),
        // A way that waits for room to write does not look at the rules.
        () = cut.0.until_cut() => Err(reset()),
        () = cut.1.until_cut() => Err(reset()),
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// One way of a connection, as its rules have it.
#[derive(Clone)]
struct Way {
    from: Place,
    to: Place,
    rules: watch::Receiver<Rules>,
}

impl Way {
    fn new(network: &Network, from: Place, to: Place) -> Way {
        Way {
            from,
            to,
            rules: network.rules(),
        }
    }

    fn flow(&mut self) -> Flow {
        self.rules.borrow_and_update().flow(self.from, self.to)
    }

    /// Waits for other rules.
    async fn changes(&mut self) {
        if self.rules.changed().await.is_err() {
            // The network is gone, and with it all who could change anything.
            std::future::pending::<()>().await;
        }
    }

    async fn until_cut(&mut self) {
        while self.flow() != Flow::Cut {
            self.changes().await;
        }
    }

    /// Waits until a new connection would come through.
    async fn until_open(&mut self) -> io::Result<()> {
        loop {
            match self.flow() {
                Flow::Passes | Flow::Slow(_) => return Ok(()),
                Flow::Cut => return Err(reset()),
                Flow::Stalls | Flow::Vanishes => self.changes().await,
            }
        }
    }
}

/// Carries bytes one way, until their end; an error where the connection is to be reset.
async fn carry(mut read: ReadHalf<'_>, mut write: WriteHalf<'_>, way: &mut Way) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut lost = false;
    loop {
        let flow = way.flow();
        match flow {
            Flow::Cut => return Err(reset()),
            Flow::Stalls => {
                way.changes().await;
                continue;
            }
            Flow::Passes | Flow::Slow(_) if lost => return Err(reset()),
            Flow::Passes | Flow::Slow(_) | Flow::Vanishes => {}
        }
        let bytes = tokio::select! {
            bytes = read.read(&mut buffer) => bytes,
            () = way.changes() => continue,
        };
        if way.flow() == Flow::Vanishes {
            lost = true;
            if !matches!(bytes, Ok(1..)) {
                // The end is lost too: the other side does not learn of it before this is over.
                way.changes().await;
            }
            continue;
        }
        if lost {
            // Nothing goes beyond the gap; the rule says when to reset.
            continue;
        }
        if let Flow::Slow(delay) = flow {
            tokio::time::sleep(delay).await;
        }
        match bytes? {
            0 => return write.shutdown().await,
            bytes => write.write_all(&buffer[..bytes]).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soon;
    use std::future::poll_fn;
    use std::task::Poll;

    const CLIENT: Place = Place::Client(0);
    const SERVER: Place = Place::FrontEnd;

    /// A connection through a proxy: its two ends.
    async fn pair(network: &Arc<Network>) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let proxy = open(network, Dialler::Known(CLIENT), SERVER, target).await;
        let dialled = TcpStream::connect(proxy).await.unwrap();
        let (accepted, _) = soon("a connection", listener.accept()).await.unwrap();
        (dialled, accepted)
    }

    async fn arrives(from: &mut TcpStream, to: &mut TcpStream, word: &[u8]) {
        from.write_all(word).await.unwrap();
        let mut heard = vec![0; word.len()];
        soon("a word", to.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, word);
    }

    #[tokio::test]
    async fn a_stall_holds_one_way_only_and_loses_nothing() {
        let network = Arc::new(Network::default());
        let (mut client, mut server) = pair(&network).await;
        arrives(&mut client, &mut server, b"one").await;
        let fault = network.strike(vec![(CLIENT, SERVER, Flow::Stalls)]);
        client.write_all(b"two").await.unwrap();
        arrives(&mut server, &mut client, b"back").await;
        let mut none = [0];
        let waited = Duration::from_millis(100);
        // That nothing comes can only be seen by waiting.
        let heard = tokio::time::timeout(waited, server.read(&mut none)).await;
        assert!(heard.is_err(), "{heard:?}");
        network.heal(fault);
        let mut two = [0; 3];
        soon("what was held", server.read_exact(&mut two))
            .await
            .unwrap();
        assert_eq!(&two, b"two");
    }

    #[tokio::test]
    async fn a_cut_resets() {
        let network = Arc::new(Network::default());
        let (mut client, mut server) = pair(&network).await;
        arrives(&mut client, &mut server, b"one").await;
        network.strike(vec![(CLIENT, SERVER, Flow::Cut)]);
        for end in [&mut client, &mut server] {
            let end = soon("a reset", end.read(&mut [0; 8])).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn what_vanished_leaves_a_gap_that_resets() {
        let network = Arc::new(Network::default());
        let (mut client, mut server) = pair(&network).await;
        arrives(&mut client, &mut server, b"one").await;
        let fault = network.strike(vec![(CLIENT, SERVER, Flow::Vanishes)]);
        // More than fits into what the sockets hold: some of it was taken, and is gone.
        let much = vec![1; 32 * 1024 * 1024];
        let written = client.write_all(&much);
        soon("all of it to be taken", written).await.unwrap();
        arrives(&mut server, &mut client, b"back").await;
        network.heal(fault);
        let end = soon("a reset", server.read_to_end(&mut Vec::new())).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    /// The two ends of a connection without a proxy.
    async fn direct() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (accepted, _) = soon("a connection", listener.accept()).await.unwrap();
        (dialled.unwrap(), accepted)
    }

    /// The runtime hears of a new socket's connection together with what there is to read on others.
    async fn look_at_sockets() {
        direct().await;
    }

    /// Both are seen at once, the end of the fault and new bytes, and either may be taken up: so often.
    #[tokio::test]
    async fn nothing_is_carried_beyond_a_gap() {
        for _ in 0..32 {
            let network = Network::default();
            let (mut client, mut accepted) = direct().await;
            let (mut dialled, mut server) = direct().await;
            let fault = network.strike(vec![(CLIENT, SERVER, Flow::Vanishes)]);
            let mut way = Way::new(&network, CLIENT, SERVER);
            let (read, _) = accepted.split();
            let (_, write) = dialled.split();
            let mut carried = Box::pin(carry(read, write, &mut way));
            client.write_all(b"gone").await.unwrap();
            look_at_sockets().await;
            let first = poll_fn(|cx| Poll::Ready(carried.as_mut().poll(cx))).await;
            assert!(first.is_pending(), "{first:?}");
            network.heal(fault);
            client.write_all(b"beyond").await.unwrap();
            look_at_sockets().await;
            let end = soon("a reset", carried).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            drop(dialled);
            let mut heard = Vec::new();
            soon("an end", server.read_to_end(&mut heard))
                .await
                .unwrap();
            assert_eq!(heard, b"");
        }
    }
}
