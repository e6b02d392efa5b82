//! A FIN that comes before the text that it follows: against a hand that sends every segment.

use harness::sim::hand::connected;
use stack::error::Error;
use stack::settings::Values;
use stack::tcp::state::State;
use stack::wire::tcp::Flags;
use stack::wire::tcp::options::Options;

const FIN: Flags = Flags(Flags::ACK.0 | Flags::FIN.0);

/// It is reported with its text, and need not come again (RFC 9293 §3.10.7.4, SHLD-31; tcp_ofo_queue).
#[test]
fn a_fin_behind_a_gap_is_kept() {
    let (mut bench, socket, seq, ack) = connected(1, &Values::default());
    let heard = bench.send(FIN, seq + 5, ack, Options::default(), b"world");
    let blocks: Vec<(u32, u32)> =
        heard[0].options.sack.as_slice().iter().map(|block| (block.left.0, block.right.0)).collect();
    assert_eq!((heard[0].ack, blocks), (seq, vec![(seq + 5, seq + 11)]));
    assert_eq!(bench.with(|stack| stack.state(socket)), Ok(State::Established));
    let heard = bench.send(Flags::ACK, seq, ack, Options::default(), b"hello");
    assert_eq!(heard.last().expect("an acknowledgment").ack, seq + 11);
    assert_eq!(bench.with(|stack| stack.state(socket)), Ok(State::CloseWait));
    let mut bytes = [0; 20];
    assert_eq!(bench.with(|stack| stack.receive(socket, &mut [&mut bytes])), Ok(10));
    assert_eq!(
        (bytes[..10].to_vec(), bench.with(|stack| stack.receive(socket, &mut [&mut bytes]))),
        (b"helloworld".to_vec(), Ok(0))
    );
}

/// So is one without text; what is missing is asked for at once. One that comes later at another place is none.
#[test]
fn a_fin_alone_is_kept_too() {
    let (mut bench, socket, seq, ack) = connected(2, &Values::default());
    let heard = bench.send(FIN, seq + 5, ack, Options::default(), b"");
    assert_eq!(heard.iter().map(|it| it.ack).collect::<Vec<_>>(), [seq]);
    bench.send(FIN, seq + 3, ack, Options::default(), b"");
    let heard = bench.send(Flags::ACK, seq, ack, Options::default(), b"hel");
    assert!(heard.iter().all(|it| it.ack == seq + 3));
    assert_eq!(bench.with(|stack| stack.state(socket)), Ok(State::Established));
    let heard = bench.send(Flags::ACK, seq + 3, ack, Options::default(), b"lo");
    assert_eq!(heard.last().expect("an acknowledgment").ack, seq + 6);
    assert_eq!(bench.with(|stack| stack.state(socket)), Ok(State::CloseWait));
}

/// What ends before the gap is filled leaves nothing behind: its record is another's once nobody holds it.
#[test]
fn a_kept_fin_ends_with_its_connection() {
    let (mut bench, socket, seq, ack) = connected(3, &Values::default());
    bench.send(FIN, seq + 5, ack, Options::default(), b"");
    bench.send(Flags::RST, seq, ack, Options::default(), b"");
    assert_eq!(bench.with(|stack| stack.state(socket)), Ok(State::Closed));
    assert_eq!(
        bench.with(|stack| (stack.close(socket), stack.state(socket))),
        (Ok(()), Err(Error::BadHandle))
    );
}
