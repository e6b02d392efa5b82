//! Round trips: send a message, wait for the same message, note the time.
//!
//! Each sample is the time between the clock just before `send` and the clock just after `recv`, so it
//! holds one reading of the clock (about 25 ns). All samples after the warm-up count.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Channel, Outcome, Params, called, echo, pattern, report, ring_share, warm_up};
use crate::bench::sock::{self, Fork};
use crate::bench::stats::Latency;

/// `port=N size=BYTES mode=block|spin ms=N`: the client of `echo-server`.
pub(super) fn client(params: &Params) -> Outcome<()> {
    let connection = called("connect", sock::connect_tcp(params.get("port")?))?;
    called("TCP_NODELAY", sock::set_nodelay(&connection))?;
    if params.get::<String>("mode")? == "spin" {
        called("O_NONBLOCK", sock::set_nonblocking(&connection))?;
    }
    let size = params.get("size")?;
    let (mut result, messages) = measure(Channel::socket(&connection), size, params.duration()?)?;
    let bytes = messages * size as u64;
    result["ring"] = json!(ring_share(&connection, bytes, bytes));
    report(&result)
}

/// `transport=unix|pipe size=BYTES ms=N client=CPU server=CPU`: both ends, by fork.
pub(super) fn pair(params: &Params) -> Outcome<()> {
    let transport: String = params.get("transport")?;
    let ((client_in, client_out), (server_in, server_out)) = match transport.as_str() {
        "unix" => {
            let (client, server) = called("socketpair", sock::socketpair())?;
            let second = |fd: &std::os::fd::OwnedFd| called("dup", fd.try_clone());
            ((second(&client)?, client), (second(&server)?, server))
        }
        "pipe" => {
            let (client_in, server_out) = called("pipe", sock::pipe())?;
            let (server_in, client_out) = called("pipe", sock::pipe())?;
            ((client_in, client_out), (server_in, server_out))
        }
        _ => return Err(format!("transport={transport} is unknown")),
    };
    let size = params.get("size")?;
    match called("fork", sock::fork())? {
        Fork::Child => {
            drop((client_in, client_out));
            let served = called("pin", sock::pin(params.get("server")?))
                .and_then(|()| echo::serve(Channel::pipes(&server_in, &server_out), size));
            if let Err(message) = &served {
                eprintln!("pair: {message}");
            }
            sock::exit_now(i32::from(served.is_err()))
        }
        Fork::Parent(child) => {
            drop((server_in, server_out));
            called("pin", sock::pin(params.get("client")?))?;
            let channel = Channel::pipes(&client_in, &client_out);
            let (result, _) = measure(channel, size, params.duration()?)?;
            drop((client_in, client_out));
            match called("waitpid", sock::wait_child(child))? {
                true => report(&result),
                false => Err("the other end failed".to_owned()),
            }
        }
    }
}

/// Round trips for `duration` after the warm-up: the result, and the messages of both together.
fn measure(channel: Channel, size: usize, duration: Duration) -> Outcome<(Value, u64)> {
    let mut message = vec![0; size];
    let mut reply = vec![0; size];
    let mut number = 0;
    let mut round_trip = || -> Outcome<(Instant, Instant)> {
        pattern::stamp(&mut message, number);
        let start = Instant::now();
        channel.send_all(&message)?;
        if !channel.recv_full(&mut reply)? {
            return Err("the server closed the connection".to_owned());
        }
        let end = Instant::now();
        pattern::verify(&reply, number)?;
        number += 1;
        Ok((start, end))
    };
    let warmed = warm_up(|| round_trip().map(|_| ()))?;
    let mut latency = Latency::new();
    let begin = Instant::now();
    loop {
        let (start, end) = round_trip()?;
        latency.record(end.duration_since(start).as_nanos() as u64);
        if end.duration_since(begin) >= duration {
            break;
        }
    }
    let result = json!({ "latency": latency.to_json(), "messages": latency.count(), "warm_up": warmed });
    Ok((result, number))
}
