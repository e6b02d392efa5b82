//! One reading of a process: its cards and its sockets, joined by descriptor number.

use super::carried::{self, Carried};
use super::sockets::{Socket, Table};
use super::{process, sockets};
use driver::cards::{CardView, HeaderView, Path, Reader};
use rows::reasons::Reason;
use std::collections::HashMap;
use std::io;

/// One socket of a process.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Its descriptor number; the lowest if it has several.
    pub fd: i32,
    /// The kernel's number of the socket; 0 when the descriptor is gone already.
    pub inode: u64,
    /// What the kernel says of it.
    pub socket: Option<Socket>,
    /// What the library says of it.
    pub card: Option<CardView>,
    /// What the network stack says of it, if that has it.
    pub carried: Option<Carried>,
}

impl Row {
    /// `local`, `kernel`, …
    pub(crate) fn path(&self) -> &'static str {
        self.card.as_ref().map_or("kernel", |card| card.path.word())
    }

    /// Whether its bytes travel through rings.
    pub(crate) fn is_accelerated(&self) -> bool {
        self.card.as_ref().is_some_and(|card| matches!(card.path, Path::Local | Path::Stack))
    }

    /// The word for why it is not accelerated.
    pub(crate) fn reason(&self) -> &'static str {
        match &self.card {
            Some(card) => Reason::from_number(card.reason).word(),
            None if self.is_tcp() => "not-followed",
            None => "not-tcp",
        }
    }

    /// Why it is not accelerated, in a sentence; `None` if it is or if nothing is to be said.
    pub(crate) fn why(&self) -> Option<String> {
        match &self.card {
            Some(card) if matches!(card.path, Path::Local | Path::Stack) => None,
            Some(card) => match Reason::from_number(card.reason) {
                Reason::None => match card.path {
                    Path::Listener => Some("connections that it accepts are candidates.".to_owned()),
                    Path::Meeting => Some("waiting for the program at the other end to answer.".to_owned()),
                    _ => Some("nothing has been decided yet.".to_owned()),
                },
                reason => Some(format!("{}: {}", reason.word(), reason.doc())),
            },
            None if self.is_tcp() => Some(
                "not-followed: accel did not see it being made (it came from another program or \
                 from before)."
                    .to_owned(),
            ),
            None => None,
        }
    }

    /// `127.0.0.1:80 -> 127.0.0.1:4711 ESTABLISHED`, or the protocol.
    pub(crate) fn connection(&self) -> String {
        let carried = self.carried.as_ref().filter(|_| self.is_accelerated());
        let named = carried.and_then(|carried| carried.socket.as_ref());
        let Some(socket) = named.or(self.socket.as_ref()) else { return "closed by now".to_owned() };
        let mut text = socket.protocol.to_owned();
        if let Some(local) = socket.local {
            text += &format!(" {local}");
        }
        if let Some(remote) = socket.remote {
            text += &format!(" -> {remote}");
        }
        if !socket.state.is_empty() {
            text += &format!(" {}", socket.state);
        }
        text
    }

    fn is_tcp(&self) -> bool {
        self.socket.as_ref().is_some_and(Socket::is_tcp)
    }
}

/// A reading of a process.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The process.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// The totals of its family, if it publishes cards.
    pub header: Option<HeaderView>,
    /// Its sockets, by descriptor number.
    pub rows: Vec<Row>,
}

/// Kernel tables, read once per network namespace.
#[derive(Debug, Default)]
pub(crate) struct Tables(HashMap<String, Table>);

impl Tables {
    /// The table of the process's namespace.
    pub(crate) fn of(&mut self, pid: i32) -> &Table {
        self.0.entry(Self::namespace(pid)).or_insert_with(|| sockets::table(pid))
    }

    /// Forgets what was read, so that new sockets are found.
    pub(crate) fn refresh(&mut self, pid: i32) {
        self.0.remove(&Self::namespace(pid));
    }

    fn namespace(pid: i32) -> String {
        std::fs::read_link(format!("/proc/{pid}/ns/net"))
            .map_or_else(|_| pid.to_string(), |link| link.to_string_lossy().into_owned())
    }
}

/// Reads a process.
pub(crate) fn read(pid: i32, tables: &mut Tables) -> io::Result<Reading> {
    let reader = open(pid)?;
    let cards = reader.as_ref().map(Reader::sockets).unwrap_or_default();
    let descriptors = sockets::descriptors(pid)?;
    let header = reader.as_ref().map(Reader::header);
    let mut rows = join(pid, &cards, &descriptors, tables.of(pid));
    carried::add(pid, &mut rows);
    Ok(Reading { pid, name: process::name(pid), header, rows })
}

/// The cards of a process; `None` if it has none.
pub(crate) fn open(pid: i32) -> io::Result<Option<Reader>> {
    match Reader::open(pid.cast_unsigned()) {
        Ok(reader) => Ok(Some(reader)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Joins the cards that `pid` holds with its descriptors.
pub(crate) fn join(pid: i32, cards: &[CardView], descriptors: &[(i32, u64)], table: &Table) -> Vec<Row> {
    let mut mine: HashMap<i32, &CardView> = cards
        .iter()
        .filter(|card| card.owner == pid || card.holders.contains(&pid))
        .map(|card| (card.fd, card))
        .collect();
    // First the descriptors that cards name, so that duplicates of them are not mistaken for other sockets.
    let mut by_inode: HashMap<u64, Row> = HashMap::new();
    let is_mine = |fd: &i32| mine.contains_key(fd);
    let (with, without): (Vec<(i32, u64)>, Vec<_>) =
        descriptors.iter().copied().partition(|(fd, _)| is_mine(fd));
    for (fd, inode) in with.into_iter().chain(without) {
        by_inode.entry(inode).or_insert_with(|| Row {
            fd,
            inode,
            socket: table.get(&inode).cloned(),
            card: mine.remove(&fd).copied(),
            carried: None,
        });
    }
    let gone = mine.into_values().map(|card| Row {
        fd: card.fd,
        inode: 0,
        socket: None,
        card: Some(*card),
        carried: None,
    });
    let mut rows: Vec<Row> = by_inode.into_values().chain(gone).collect();
    rows.sort_by_key(|row| (row.fd, row.inode));
    rows
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use driver::cards::Counts;

    pub(crate) fn card(fd: i32, owner: i32, path: Path, reason: Reason) -> CardView {
        CardView {
            fd,
            owner,
            path,
            reason: reason as u8,
            flags: 0,
            in_stack: None,
            holders: [owner, 0, 0, 0, 0, 0],
            counts: Counts { ring_sends: 3, ring_sent_bytes: 3000, ..Counts::default() },
        }
    }

    pub(crate) fn table() -> Table {
        let socket = |protocol, state| Socket {
            protocol,
            local: Some("127.0.0.1:80".parse().unwrap()),
            remote: Some("127.0.0.1:4711".parse().unwrap()),
            state,
        };
        [(100, socket("tcp", "ESTABLISHED")), (101, socket("udp", "")), (102, socket("tcp", "CLOSE-WAIT"))]
            .into()
    }

    #[test]
    fn cards_and_descriptors_are_joined_and_strangers_left_out() {
        let cards = [
            card(5, 7, Path::Local, Reason::None),
            card(6, 8, Path::Local, Reason::None),
            card(9, 7, Path::Kernel, Reason::PeerPlain),
        ];
        let rows = join(7, &cards, &[(3, 101), (4, 100), (5, 100), (6, 102)], &table());
        let seen: Vec<_> = rows.iter().map(|row| (row.fd, row.path(), row.reason())).collect();
        let expected = [
            (3, "kernel", "not-tcp"),
            (5, "local", "none"),
            (6, "kernel", "not-followed"),
            (9, "kernel", "peer-not-under-accel"),
        ];
        assert_eq!(seen, expected, "descriptor 4 is a duplicate of 5; the card of process 8 is not ours");
        assert_eq!(rows[1].connection(), "tcp 127.0.0.1:80 -> 127.0.0.1:4711 ESTABLISHED");
        assert_eq!(rows[3].connection(), "closed by now");
    }
    #[test]
    fn the_cards_of_a_live_process_are_read() {
        use driver::cards::{Table, bump};
        use std::os::fd::AsRawFd;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (cards, _memory) = Table::create(100).unwrap();
        let card = cards.card(cards.take(std::process::id()).unwrap());
        card.describe(client.as_raw_fd(), Path::Local, Reason::None as u8);
        bump(&card.counters.ring_sends, 3);
        cards.count_candidate(card);
        let pid = i32::try_from(std::process::id()).unwrap();
        let reading = read(pid, &mut Tables::default()).unwrap();
        let row = reading.rows.iter().find(|row| row.fd == client.as_raw_fd()).unwrap();
        assert!(row.is_accelerated());
        assert_eq!(row.card.unwrap().counts.ring_sends, 3);
        assert_eq!(row.socket.as_ref().unwrap().remote, Some(listener.local_addr().unwrap()));
        let row = reading.rows.iter().find(|row| row.fd == listener.as_raw_fd()).unwrap();
        assert_eq!((row.path(), row.reason()), ("kernel", "not-followed"));
        assert_eq!(reading.header.unwrap().candidates, 1);
    }
}
