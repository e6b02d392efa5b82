//! Why a socket is where it is: one row per reason, shown by `accel explain` and counted by `accel stat`.

macro_rules! reasons {
    ($($id:ident = $number:literal $word:literal $doc:literal;)*) => {
        /// Why a socket is not accelerated.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Reason { $($id = $number),* }

        /// Every reason with its word and its sentence, in numeric order.
        pub const REASONS: &[(Reason, &str, &str)] = &[$((Reason::$id, $word, $doc)),*];
    };
}

reasons! {
    None = 0 "none" "The socket is accelerated, or nothing has been decided yet.";
    TooFew = 1 "few-messages" "It has carried fewer messages than ACCEL_LOCAL_AFTER asks for.";
    NotConnected = 2 "not-connected" "It is not an established TCP connection.";
    PeerPlain = 3 "peer-not-under-accel" "The program at the other end did not answer: it does not run under accel.";
    PeerElsewhere = 4 "peer-elsewhere" "The other end is not in this network namespace (another host, container or namespace).";
    PeerUser = 5 "peer-user" "The program at the other end belongs to another user, and ACCEL_LOCAL_PEERS=any is not set on both sides.";
    PeerContainer = 6 "peer-container" "The program at the other end is in another PID namespace (another container).";
    Shared = 7 "shared" "More than one process holds the socket.";
    GivenAway = 8 "given-away" "The socket was handed to another process or to stdio (SCM_RIGHTS, exec, fdopen, io_uring).";
    UsedByChild = 9 "used-by-other-process" "A process that inherited the socket over fork used it.";
    Option = 10 "socket-option" "A socket option is set that only the kernel can honour (kTLS, SO_TIMESTAMPING, MSG_ZEROCOPY, TCP_REPAIR, pacing, filter, ...).";
    Port = 11 "port" "ACCEL_PORTS or ACCEL_PORTS_EXCLUDE says so.";
    SwitchedOff = 12 "switched-off" "ACCEL or ACCEL_LOCAL is off, or accel is inert in this process.";
    Memory = 13 "memory" "ACCEL_LOCAL_MEMORY is used up, or the system refused memory.";
    Forbidden = 14 "forbidden" "The system refused a call that meeting the peer needs (seccomp, LSM, limits).";
    Violation = 15 "violation" "The peer wrote impossible values to the shared memory; the connection was ended.";
    Urgent = 16 "urgent-data" "Urgent data was used on the connection.";
    Signals = 17 "signal-io" "O_ASYNC or F_SETOWN: only the kernel can send SIGIO.";
    Tables = 18 "tables-full" "accel's table of sockets is full.";
    Finished = 19 "finished" "The connection is being closed.";
    Counts = 20 "counts" "The byte counts of both ends never agreed (somebody reads or writes the socket without libc).";
    Apart = 21 "never-both" "One end had finished before the other first used the connection: they could not have met.";
    OtherWay = 22 "other-way" "Its own address, or the way to its peer, is not that of an interface that accel drives (ACCEL_INTERFACES).";
    Refused = 23 "refused" "The keeper did not give it its port on the interface, or the stack has no room for it (`accel doctor`).";
}

impl Reason {
    /// The reason with this number; numbers from elsewhere than this table give `Violation`.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        REASONS.get(usize::from(number)).map_or(Self::Violation, |row| row.0)
    }

    /// Its word, e.g. `peer-user`.
    #[must_use]
    pub fn word(self) -> &'static str {
        REASONS[self as usize].1
    }

    /// Its sentence.
    #[must_use]
    pub fn doc(self) -> &'static str {
        REASONS[self as usize].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_positions() {
        for (index, row) in REASONS.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert_eq!(Reason::from_number(u8::try_from(index).unwrap()), row.0);
        }
    }
}
