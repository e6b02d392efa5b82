//! What a script consists of, once it is read.

use stack::wire::tcp::Flags;

use super::options::Choice;

/// A time of the script, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// `*`: whenever.
    Any,
    /// `0.1`: since the script began.
    Absolute(i64),
    /// `+0.1`: since the event before.
    Relative(i64),
    /// `0.1~0.2`.
    AbsoluteRange(i64, i64),
    /// `+0.1~+0.2`.
    RelativeRange(i64, i64),
}

/// A line that happens.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number in the file, from 1 on.
    pub line: usize,
    /// When.
    pub time: Time,
    /// What.
    pub action: Action,
    /// As it is written.
    pub text: String,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Action {
    /// `<`: a packet arrives.
    Inject(Packet),
    /// `>`: a packet is expected.
    Expect(Packet),
    /// A system call.
    Call(Call),
    /// A command of the shell, between back quotes.
    Command(String),
    /// Assertions about TCP_INFO, between `%{` and `}%`.
    Code(String),
}

/// What is said about ECN's bits of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecn {
    /// These two.
    Exactly(u8),
    /// `ect01`: one of the two for a capable transport.
    Capable,
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// ECN's bits, where it matters.
    pub ecn: Option<Ecn>,
    /// The whole byte.
    pub tos: Option<u8>,
    /// Time to live, or hop limit.
    pub ttl: Option<u8>,
    /// What it carries.
    pub body: Body,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A segment of TCP.
    Tcp(Segment),
    /// An error of ICMP, or ICMPv6.
    Icmp(Icmp),
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sender's and receiver's port, if they are written.
    pub ports: Option<(u16, u16)>,
    /// Control bits.
    pub flags: Flags,
    /// SEG.SEQ.
    pub seq: u32,
    /// Octets of text.
    pub len: u32,
    /// SEG.ACK; 0 without ACK.
    pub ack: u32,
    /// SEG.WND, not scaled, where it matters.
    pub window: Option<u16>,
    /// SEG.UP.
    pub urgent: u16,
    /// Options, where they matter.
    pub options: Option<Vec<Choice>>,
}

/// An error of ICMP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// `unreachable`, `packet_too_big`, `time_exceeded`, …
    pub kind: String,
    /// `host_unreachable`, `frag_needed`, …
    pub code: String,
    /// Of the next hop.
    pub mtu: u32,
    /// SEG.SEQ and length of the quoted segment.
    pub quoted: Option<(u32, u32)>,
}

/// A system call.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it ends, in microseconds from where its beginning is counted from; `None` if it doesn't wait.
    pub end: Option<i64>,
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<Expr>,
    /// What it returns; `None` for `...`.
    pub result: Option<i64>,
    /// The name of its error.
    pub errno: Option<String>,
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// `...`.
    Any,
    /// A number, or the value of names.
    Number(i64),
    /// `"text"`.
    Text(String),
    /// `[a, b]`.
    List(Vec<Self>),
    /// `{a=1, b=2}`; a member without name has an empty one.
    Record(Vec<(String, Self)>),
    /// A name that is no constant.
    Name(String),
}

/// A whole script.
#[derive(Clone, Debug)]
pub struct Script {
    /// `--name=value`.
    pub options: Vec<(String, String)>,
    /// Its events; commands outside of time happen with the next event.
    pub events: Vec<Event>,
}
