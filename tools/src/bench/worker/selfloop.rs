//! A process connected to itself, for counting instructions: send at one end, receive at the other.

use serde_json::json;

use super::{Channel, Outcome, Params, called, pattern, report, ring_share};
use crate::bench::sock;

/// `count=N size=BYTES`: N messages in each direction in turn, all small enough to be buffered.
pub(super) fn run(params: &Params) -> Outcome<()> {
    let count: u64 = params.get("count")?;
    let size: usize = params.get("size")?;
    let (listener, port) = called("listen", sock::listen_tcp())?;
    let client = called("connect", sock::connect_tcp(port))?;
    let server = called("accept", sock::accept(&listener))?;
    called("TCP_NODELAY", sock::set_nodelay(&client))?;
    called("TCP_NODELAY", sock::set_nodelay(&server))?;
    let ends = [Channel::socket(&client), Channel::socket(&server)];
    let mut message = vec![0; size];
    for number in 0..count {
        let (from, to) = (ends[(number % 2) as usize], ends[((number + 1) % 2) as usize]);
        pattern::stamp(&mut message, number);
        from.send_all(&message)?;
        to.recv_full(&mut message)?;
        pattern::verify(&message, number)?;
    }
    let bytes = count * size as u64;
    report(&json!({ "messages": count, "ring": ring_share(&client, bytes / 2, bytes / 2) }))
}
