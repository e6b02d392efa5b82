//! The grammar, as packetdrill's own has it, for what is supported: TCP over IP without tunnels, errors of ICMP, calls.

use stack::wire::tcp::Flags;

use super::options::Choice;
use super::scan::{Scan, Unexpected};
use super::symbols;
use super::syntax::{Action, Body, Call, Ecn, Event, Expr, Icmp, Packet, Script, Segment, Time};

type Parsed<T> = Result<T, Unexpected>;

/// Reads a script.
///
/// # Errors
/// The line, and what should be there.
pub fn script(text: &str) -> Parsed<Script> {
    let mut scan = Scan::new(text);
    let mut script = Script { options: Vec::new(), events: Vec::new() };
    while scan.takes("--") {
        script.options.push(option(&mut scan)?);
    }
    loop {
        scan.blank();
        if scan.rest().is_empty() {
            return Ok(script);
        }
        script.events.push(event(&mut scan)?);
    }
}

fn option(scan: &mut Scan<'_>) -> Parsed<(String, String)> {
    let name = scan.word().ok_or_else(|| scan.wrong("an option's name"))?.to_owned();
    let mut value = "";
    if scan.takes("=") {
        let rest = scan.rest();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        value = &rest[..end];
        scan.skip(end);
    }
    Ok((name, value.to_owned()))
}

fn event(scan: &mut Scan<'_>) -> Parsed<Event> {
    let (begin, line) = (scan.at(), scan.line());
    // A command may stand outside of time.
    let time = if scan.sees("`") { Time::Relative(0) } else { time(scan)? };
    let action = if scan.takes("<") {
        Action::Inject(packet(scan)?)
    } else if scan.takes(">") {
        Action::Expect(packet(scan)?)
    } else if scan.takes("`") {
        Action::Command(until(scan, "`")?)
    } else if scan.takes("%{") {
        Action::Code(until(scan, "}%")?)
    } else {
        Action::Call(call(scan)?)
    };
    Ok(Event { line, time, action, text: scan.since(begin) })
}

fn until(scan: &mut Scan<'_>, end: &str) -> Parsed<String> {
    let rest = scan.rest();
    let len = rest.find(end).ok_or_else(|| scan.wrong(format!("`{end}`")))?;
    scan.skip(len + end.len());
    Ok(rest[..len].to_owned())
}

fn time(scan: &mut Scan<'_>) -> Parsed<Time> {
    if scan.takes("*") {
        return Ok(Time::Any);
    }
    let is_relative = scan.takes("+");
    let begin = scan.seconds().ok_or_else(|| scan.wrong("a time"))?;
    if !scan.takes("~") {
        return Ok(if is_relative { Time::Relative(begin) } else { Time::Absolute(begin) });
    }
    if is_relative {
        scan.needs("+")?;
    }
    let end = scan.seconds().ok_or_else(|| scan.wrong("a time"))?;
    Ok(if is_relative { Time::RelativeRange(begin, end) } else { Time::AbsoluteRange(begin, end) })
}

// ---- packets ----

fn packet(scan: &mut Scan<'_>) -> Parsed<Packet> {
    let mut packet = Packet { ecn: None, tos: None, ttl: None, body: Body::Tcp(empty()) };
    let close = if scan.takes("[") { Some("]") } else { scan.takes("(").then_some(")") };
    if let Some(close) = close {
        ip(scan, &mut packet)?;
        scan.needs(close)?;
    }
    packet.body = match () {
        () if scan.takes_word("icmp") => Body::Icmp(icmp(scan)?),
        () if scan.takes_word("udp") => return Err(scan.wrong("no datagram of UDP")),
        () => Body::Tcp(segment(scan)?),
    };
    Ok(packet)
}

const fn empty() -> Segment {
    let flags = Flags(0);
    Segment { ports: None, flags, seq: 0, len: 0, ack: 0, window: None, urgent: 0, options: None }
}

fn ip(scan: &mut Scan<'_>, packet: &mut Packet) -> Parsed<()> {
    match scan.word() {
        Some("noecn") => packet.ecn = Some(Ecn::Exactly(0)),
        Some("ect1") => packet.ecn = Some(Ecn::Exactly(1)),
        Some("ect0") => packet.ecn = Some(Ecn::Exactly(2)),
        Some("ce") => packet.ecn = Some(Ecn::Exactly(3)),
        Some("ect01") => packet.ecn = Some(Ecn::Capable),
        Some("tos") => packet.tos = Some(scan.needs_number()?),
        Some("ttl") => packet.ttl = Some(scan.needs_number()?),
        _ => return Err(scan.wrong("ECN's bits, `tos` or `ttl`")),
    }
    Ok(())
}

fn segment(scan: &mut Scan<'_>) -> Parsed<Segment> {
    let mut segment = empty();
    let mut ahead = *scan;
    if let Some(source) = ahead.number()
        && ahead.takes(">")
    {
        *scan = ahead;
        let wide = |scan: &Scan<'_>| scan.wrong("a port");
        segment.ports = Some((u16::try_from(source).map_err(|_| wide(scan))?, scan.needs_number()?));
    }
    segment.flags = flags(scan)?;
    let wrapping = |number: i64| number as u32;
    segment.seq = wrapping(scan.needs_number()?);
    scan.needs(":")?;
    let end = wrapping(scan.needs_number()?);
    scan.needs("(")?;
    segment.len = scan.needs_number()?;
    scan.needs(")")?;
    if end != segment.seq.wrapping_add(segment.len) {
        return Err(scan.wrong("an end that is the beginning and the length"));
    }
    let has_ack = scan.takes_word("ack");
    if has_ack {
        segment.ack = wrapping(scan.needs_number()?);
    }
    if has_ack != segment.flags.has(Flags::ACK) {
        return Err(scan.wrong("`ack` just where the flags have `.`"));
    }
    if scan.takes_word("win") {
        segment.window = Some(scan.needs_number()?);
    }
    if scan.takes_word("urg") {
        segment.urgent = scan.needs_number()?;
    }
    segment.options = Some(Vec::new());
    if scan.takes("<") {
        segment.options = if scan.takes("...") { None } else { Some(options(scan)?) };
        scan.needs(">")?;
    }
    Ok(segment)
}

fn flags(scan: &mut Scan<'_>) -> Parsed<Flags> {
    scan.blank();
    let rest = scan.rest();
    let len = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let mut flags = Flags::default();
    for letter in rest[..len].chars() {
        flags |= match letter {
            'F' => Flags::FIN,
            'S' => Flags::SYN,
            'R' => Flags::RST,
            'P' => Flags::PSH,
            '.' => Flags::ACK,
            'U' => Flags::URG,
            'E' => Flags::ECE,
            'W' | 'C' => Flags::CWR,
            'A' => Flags::AE,
            '-' => Flags::default(),
            _ => return Err(scan.wrong("flags of TCP")),
        };
    }
    scan.skip(len);
    Ok(flags)
}

fn options(scan: &mut Scan<'_>) -> Parsed<Vec<Choice>> {
    let mut found = Vec::new();
    loop {
        found.push(choice(scan)?);
        if !scan.takes(",") {
            return Ok(found);
        }
    }
}

fn choice(scan: &mut Scan<'_>) -> Parsed<Choice> {
    let wrapping = |number: i64| number as u32;
    Ok(match scan.word() {
        Some("nop") => Choice::Nop,
        Some("eol") => Choice::End,
        Some("mss") => Choice::Mss(scan.needs_number()?),
        Some("wscale") => Choice::Scale(scan.needs_number()?),
        Some("sackOK") => Choice::SackPermitted,
        Some("sack") => {
            let mut blocks = Vec::new();
            while let Some(left) = scan.number() {
                scan.needs(":")?;
                blocks.push((wrapping(left), wrapping(scan.needs_number()?)));
            }
            Choice::Sack(blocks)
        }
        Some("TS") => {
            scan.needs("val")?;
            let tsval = wrapping(scan.needs_number()?);
            scan.needs("ecr")?;
            Choice::Timestamps(tsval, wrapping(scan.needs_number()?))
        }
        Some("FO") => Choice::Other(34, bytes(scan)),
        Some("FOEXP") => Choice::Other(254, [vec![0xf9, 0x89], bytes(scan)].concat()),
        Some("md5") => Choice::Other(19, bytes(scan)),
        _ => return Err(scan.wrong("an option of TCP")),
    })
}

fn bytes(scan: &mut Scan<'_>) -> Vec<u8> {
    let digits = scan.hex().unwrap_or_default();
    let pair = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..digits.len()).step_by(2).filter_map(pair).collect()
}

fn icmp(scan: &mut Scan<'_>) -> Parsed<Icmp> {
    let kind = scan.word().ok_or_else(|| scan.wrong("a type of ICMP"))?.to_owned();
    let mut icmp = Icmp { kind, code: String::new(), mtu: 0, quoted: None };
    let mut ahead = *scan;
    if let Some(code) = ahead.word().filter(|word| *word != "mtu") {
        icmp.code = code.to_owned();
        *scan = ahead;
    }
    if scan.takes_word("mtu") {
        icmp.mtu = scan.needs_number()?;
    }
    if scan.takes("[") {
        let wrapping = |number: i64| number as u32;
        let seq = wrapping(scan.needs_number()?);
        scan.needs(":")?;
        let _: i64 = scan.needs_number()?;
        scan.needs("(")?;
        icmp.quoted = Some((seq, scan.needs_number()?));
        scan.needs(")")?;
        scan.needs("]")?;
    }
    Ok(icmp)
}

// ---- calls ----

fn call(scan: &mut Scan<'_>) -> Parsed<Call> {
    let end = match scan.takes("...") {
        true => Some(scan.seconds().ok_or_else(|| scan.wrong("the time at which it ends"))?),
        false => None,
    };
    let name = scan.word().ok_or_else(|| scan.wrong("a packet, a call, a command or code"))?.to_owned();
    scan.needs("(")?;
    let arguments = list(scan, ")")?;
    scan.needs("=")?;
    let result = match expression(scan)? {
        Expr::Any => None,
        Expr::Number(number) => Some(number),
        _ => return Err(scan.wrong("a number that it returns")),
    };
    let mut ahead = *scan;
    let mut errno = None;
    if let Some(word) = ahead.word().filter(|word| word.starts_with('E')) {
        errno = Some(word.to_owned());
        *scan = ahead;
    }
    if scan.takes("(") {
        until(scan, ")")?;
    }
    Ok(Call { end, name, arguments, result, errno })
}

fn list(scan: &mut Scan<'_>, close: &str) -> Parsed<Vec<Expr>> {
    let mut found = Vec::new();
    while !scan.takes(close) {
        found.push(expression(scan)?);
        if !scan.takes(",") {
            scan.needs(close)?;
            break;
        }
    }
    Ok(found)
}

fn expression(scan: &mut Scan<'_>) -> Parsed<Expr> {
    let mut value = single(scan)?;
    while scan.takes("|") {
        value = match (value, single(scan)?) {
            (Expr::Number(a), Expr::Number(b)) => Expr::Number(a | b),
            _ => return Err(scan.wrong("constants on both sides of `|`")),
        };
    }
    Ok(value)
}

fn single(scan: &mut Scan<'_>) -> Parsed<Expr> {
    if scan.takes("...") {
        return Ok(Expr::Any);
    }
    if scan.takes("[") {
        return Ok(Expr::List(list(scan, "]")?));
    }
    if scan.takes("{") {
        return record(scan);
    }
    if scan.takes("\"") {
        let text = until(scan, "\"")?;
        scan.takes("...");
        return Ok(Expr::Text(text));
    }
    if let Some(number) = scan.number() {
        return Ok(Expr::Number(number));
    }
    let word = scan.word().ok_or_else(|| scan.wrong("an argument"))?;
    if scan.takes("(") {
        // htons(8080), inet_addr("192.0.2.1"): the argument itself.
        let mut arguments = list(scan, ")")?;
        return arguments.pop().ok_or_else(|| scan.wrong("an argument"));
    }
    Ok(symbols::value(word).map_or_else(|| Expr::Name(word.to_owned()), Expr::Number))
}

fn record(scan: &mut Scan<'_>) -> Parsed<Expr> {
    let mut members = Vec::new();
    while !scan.takes("}") {
        let mut ahead = *scan;
        let mut name = String::new();
        if let Some(word) = ahead.word() {
            // msg_iov(1)=…
            if ahead.takes("(") {
                until(&mut ahead, ")")?;
            }
            if ahead.takes("=") {
                name = word.to_owned();
                *scan = ahead;
            }
        }
        members.push((name, expression(scan)?));
        if !scan.takes(",") {
            scan.needs("}")?;
            break;
        }
    }
    Ok(Expr::Record(members))
}
