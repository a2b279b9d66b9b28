//! Which of our processes opened a connection: all nodes dial a node at one address, and the kernel knows who is who.

use super::network::Place;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The place of the process whose end of a connection on this machine is `end`; `None` if it has gone.
#[must_use]
pub fn dialler_of(end: SocketAddr, processes: &[(Place, u32)]) -> Option<Place> {
    let sockets = fs::read_to_string("/proc/net/tcp").ok()?;
    let socket = inode_of(end, &sockets)?;
    let link = format!("socket:[{socket}]");
    let holds = |pid: u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| target == Path::new(&link))
    };
    let mut places = processes.iter();
    places.find(|(_, pid)| holds(*pid)).map(|(place, _)| *place)
}

/// The number of the socket whose own address is `end`, in a table as the kernel prints it.
fn inode_of(end: SocketAddr, table: &str) -> Option<&str> {
    let IpAddr::V4(ip) = end.ip() else {
        return None;
    };
    // The kernel prints the address as a number of this machine's byte order.
    let own = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), end.port());
    table
        .lines()
        .map(|line| line.split_whitespace())
        .find_map(|mut fields| (fields.nth(1)? == own).then(|| fields.nth(7))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn this_process_is_found_by_its_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own = (Place::Node(3), std::process::id());
        let end = dialled.local_addr().unwrap();
        assert_eq!(
            dialler_of(end, &[(Place::FrontEnd, 1), own]),
            Some(Place::Node(3))
        );
        assert_eq!(dialler_of(end, &[]), None);
    }
}
