//! What an error of ICMP, or a neighbour that doesn't answer, does to the connection that it is about (RFC 5927).

use super::Stack;
use super::icmp::About;
use crate::device::Device;
use crate::error::Error;
use crate::ip::icmp::{Effect, Meaning, is_about_what_is_in_flight, to_tcp};
use crate::ip::path_mtu::TooBig;
use crate::seq::Seq;
use crate::settings::Discovery;
use crate::settings::Switch;
use crate::stats::Counter;
use crate::tcp::state::State;

impl<D: Device> Stack<'_, '_, D> {
    /// An error about a segment. Whether it is about one that we have sent and that isn't acknowledged.
    pub(super) fn error_for_segment(&mut self, about: &About, meaning: &Meaning) -> bool {
        let (local, remote) = ((&about.local.0, about.local.1), (&about.remote.0, about.remote.1));
        if let Some(index) = self.parts.connections().find(local, remote) {
            return self.error_for_connection(index, about, meaning);
        }
        match self.parts.waiting().find(local, remote) {
            Some(index) => self.error_for_syn(index, about, meaning),
            None => false,
        }
    }

    fn error_for_connection(&mut self, index: u32, about: &About, meaning: &Meaning) -> bool {
        let Some(tcb) = self.parts.tcbs.get(index as usize) else { return false };
        if tcb.is_handed_over() {
            return false;
        }
        let (socket, sequence, mtu) = (tcb.tag.handle(index), Seq(about.sequence), tcb.path_mtu);
        let is_opening = matches!(tcb.state(), State::SynSent | State::SynReceived);
        if !is_about_what_is_in_flight(sequence, tcb.snd.una, tcb.snd.nxt) {
            return false;
        }
        let options = self.parts.tcp_options(socket).map_or(0, |values| values.options);
        let switch = if about.remote.0.is_v4() { Switch::ERRORS } else { Switch::ERRORS_V6 };
        let effect = to_tcp(meaning, is_opening, options & switch != 0);
        let done = match effect {
            Effect::Abort(error) => self.work(socket, None, |connection| {
                connection.count(Counter::AttemptsFailed);
                connection.fail(error);
            }),
            Effect::Report(error) => self.work(socket, None, |connection| {
                connection.tcb.error = error.code();
                connection.arrived = true;
            }),
            Effect::Remember(error) => self.work(socket, None, |connection| {
                connection.tcb.soft_error = error.code();
                if meaning.is_connectivity {
                    connection.revert_backoff(sequence);
                }
            }),
            Effect::TooBig(too_big) => {
                self.path_is_narrower(socket, about, mtu, too_big);
                Ok(())
            }
        };
        done.is_ok()
    }

    /// A router has dropped what was larger than its next link takes: it is sent again in smaller segments.
    fn path_is_narrower(
        &mut self,
        socket: crate::region::slab::Handle,
        about: &About,
        before: u16,
        too_big: TooBig,
    ) {
        let (mut believes, mut follows) = (true, true);
        let _ = self.work(socket, None, |connection| {
            let how = connection.values.discovery(about.remote.0.is_v4());
            (believes, follows) = (connection.believes_routers(), how != Discovery::Dont);
        });
        if !believes {
            return;
        }
        let told = self.hear_path_mtu(&about.remote.0, too_big);
        if !follows {
            // What was sent was fragmented, or wasn't too large; what comes next is smaller (tcp_v4_mtu_reduced).
            return;
        }
        // Another connection may have heard it first.
        let known = told.or_else(|| Some(self.way(&about.remote.0).ok()?.path.mtu));
        if let Some(mtu) = known.filter(|mtu| *mtu < before) {
            let _ = self.work(socket, None, |connection| {
                connection.set_path_mtu(mtu);
                connection.resegment();
                connection.output();
            });
        }
    }

    /// A SYN that waits has SND.UNA = ISS and SND.NXT = ISS + 1; it is given up for what Linux gives it up for
    /// (tcp_req_err).
    fn error_for_syn(&mut self, index: u32, about: &About, meaning: &Meaning) -> bool {
        let Some(syn) = self.parts.syns.get(index as usize) else { return false };
        if Seq(about.sequence) != syn.iss {
            return false;
        }
        let is_transient = matches!(meaning.error, Error::HostUnreachable | Error::NetworkUnreachable);
        let gives_up = match about.remote.0.is_v4() {
            true => is_transient && !meaning.is_hard || meaning.error == Error::Protocol,
            false => meaning.is_hard,
        };
        if gives_up && meaning.too_big.is_none() && self.parts.tcp_forget_syn(index).is_ok() {
            self.count(Counter::AttemptsFailed);
        }
        true
    }
}
