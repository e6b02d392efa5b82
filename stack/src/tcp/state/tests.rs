use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::*;

/// The table and the figure, as `figure5.md` has them.
fn page() -> String {
    let mut page = "# The states of a connection (RFC 9293 figure 5)\n\nWritten by the test of `state.rs`; `ACCEL_BLESS=1 cargo \
         test -p accel-stack figure` writes it anew. ABORT and an acceptable RST lead to CLOSED, where the table says \
         so, and are not drawn.\n\n```mermaid\nstateDiagram-v2\n"
        .to_owned();
    let name = |state: State| state.to_string().replace('-', "_");
    for state in State::ALL {
        for event in Event::ALL {
            if let Some(next) = state.on(event)
                && !matches!(event, Event::Abort | Event::RcvRst)
            {
                let _ = writeln!(page, "    {} --> {}: {event}", name(state), name(next));
            }
        }
    }
    page.push_str("```\n\n| |");
    for event in Event::ALL {
        let _ = write!(page, " {event} |");
    }
    page.push_str("\n|---|");
    page.push_str(&"---|".repeat(Event::ALL.len()));
    for state in State::ALL {
        let _ = write!(page, "\n| **{state}** |");
        for event in Event::ALL {
            let next = state.on(event).map_or_else(|| "·".to_owned(), |next| next.to_string());
            let _ = write!(page, " {next} |");
        }
    }
    page + "\n"
}

#[test]
fn the_figure_shows_every_arrow() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tcp/state/figure5.md");
    if std::env::var_os("ACCEL_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, page()).expect("figure5.md can be written");
    }
    let kept = fs::read_to_string(&path).expect("figure5.md");
    assert!(kept == page(), "an arrow has changed; figure5.md would now be\n{}", page());
}

#[test]
fn a_byte_that_is_no_state_is_closed() {
    for byte in 0..=u8::MAX {
        let state = State::decode(byte);
        assert!(state as u8 == byte || (state == Closed && usize::from(byte) >= State::ALL.len()));
    }
}

/// The state after these events.
fn after(start: State, events: &[Event]) -> State {
    events.iter().fold(start, |state, event| state.on(*event).unwrap_or_else(|| panic!("{event} in {state}")))
}

#[test]
fn the_ways_of_closing_lead_where_the_rfc_says() {
    use Event::*;
    // RFC 9293 §3.6, figures 12 and 13.
    assert_eq!(after(Established, &[Close, RcvAckOfFin, RcvFin, Timeout]), Closed);
    assert_eq!(after(Established, &[RcvFin, Close, RcvAckOfFin]), Closed);
    assert_eq!(after(Established, &[Close, RcvFin, RcvAckOfFin, Timeout]), Closed);
    // Note 2: the FIN and the acknowledgment of ours in one segment.
    assert_eq!(after(FinWait1, &[RcvAckOfFin, RcvFin]), TimeWait);
}

#[test]
fn two_syns_that_cross_open_one_connection() {
    use Event::*;
    // RFC 9293 §3.5, figure 7.
    assert_eq!(after(Closed, &[ActiveOpen, RcvSyn, RcvAckOfSyn]), Established);
}

#[test]
fn a_reset_does_not_end_time_wait() {
    assert_eq!(TimeWait.on(Event::RcvRst), None, "RFC 1337 §3");
    assert_eq!(Listen.on(Event::RcvRst), None, "RFC 9293 §3.10.7.2: an incoming RST should be ignored");
}

#[test]
fn from_every_state_a_connection_can_end() {
    for state in State::ALL.into_iter().skip(1) {
        assert_eq!(state.on(Event::Abort), Some(Closed));
    }
}

#[test]
fn who_has_closed_sends_nothing_new_and_who_has_received_fin_receives_nothing() {
    for state in State::ALL {
        assert!(!(state.has_closed() && (state.may_send() || state.may_queue())), "{state}");
        assert!(!(state.has_received_fin() && state.may_receive()), "{state}");
        assert!(!state.may_receive() || state.is_synchronized(), "{state}");
    }
}

#[test]
fn linux_numbers_are_a_permutation() {
    let mut numbers: Vec<u8> = State::ALL.into_iter().map(State::as_linux).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=11).collect::<Vec<u8>>());
    assert_eq!((Established.as_linux(), Closed.as_linux(), Listen.as_linux()), (1, 7, 10));
}
