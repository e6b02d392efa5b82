//! Descriptors: the lowest free number from 3 on, as a process with the three standard ones has them.

use stack::region::slab::Handle;

use crate::control::ZeroCopy;
use crate::errno::Errno;

/// The first number that is given.
pub const FIRST: i32 = 3;
/// Most descriptors.
const MOST: usize = 1024;

/// What an instance of epoll waits for.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    /// Of which descriptor.
    pub fd: i32,
    /// EPOLLIN and its like.
    pub events: u32,
    /// What is given back with an event.
    pub data: u64,
    /// Edges of reading, writing and the error queue that were told.
    pub seen: (u32, u32, u32),
    /// With EPOLLONESHOT: it was told.
    pub is_spent: bool,
}

/// What a descriptor is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A socket of TCP.
    Tcp(Handle),
    /// An instance of epoll.
    Epoll(Vec<Interest>),
}

/// An open file.
#[derive(Clone, Debug)]
pub struct File {
    /// What it is.
    pub kind: Kind,
    /// AF_INET or AF_INET6.
    pub family: i32,
    /// O_NONBLOCK.
    pub is_nonblocking: bool,
    /// connect(2) has begun and hasn't told its end yet.
    pub is_connecting: bool,
    /// Options that the stack has no part in, as they were set: level, name, value.
    pub kept: Vec<(i32, i32, Vec<u8>)>,
    /// SO_ZEROCOPY, which the stack has no part in either.
    pub zerocopy: ZeroCopy,
}

impl File {
    /// A file that was just opened.
    #[must_use]
    pub fn new(kind: Kind, family: i32, is_nonblocking: bool) -> Self {
        let (kept, zerocopy) = Default::default();
        Self { kind, family, is_nonblocking, is_connecting: false, kept, zerocopy }
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Files {
    files: Vec<Option<File>>,
}

impl Files {
    /// Gives a file its number.
    ///
    /// # Errors
    /// EMFILE.
    pub fn open(&mut self, file: File) -> Result<i32, Errno> {
        let free = self.files.iter().position(Option::is_none);
        let at = free.unwrap_or(self.files.len());
        if at >= MOST {
            return Err(Errno(libc::EMFILE));
        }
        if at == self.files.len() {
            self.files.push(None);
        }
        self.files[at] = Some(file);
        Ok(at as i32 + FIRST)
    }

    fn place(&mut self, fd: i32) -> Option<&mut Option<File>> {
        self.files.get_mut(usize::try_from(fd.checked_sub(FIRST)?).ok()?)
    }

    /// A file.
    ///
    /// # Errors
    /// EBADF.
    pub fn of(&mut self, fd: i32) -> Result<&mut File, Errno> {
        self.place(fd).and_then(Option::as_mut).ok_or(Errno(libc::EBADF))
    }

    /// A socket of TCP.
    ///
    /// # Errors
    /// EBADF, ENOTSOCK.
    pub fn tcp(&mut self, fd: i32) -> Result<Handle, Errno> {
        match self.of(fd)?.kind {
            Kind::Tcp(socket) => Ok(socket),
            Kind::Epoll(_) => Err(Errno(libc::ENOTSOCK)),
        }
    }

    /// Takes a file out; no instance of epoll waits for it any more.
    ///
    /// # Errors
    /// EBADF.
    pub fn take(&mut self, fd: i32) -> Result<File, Errno> {
        let file = self.place(fd).and_then(Option::take).ok_or(Errno(libc::EBADF))?;
        for other in self.files.iter_mut().flatten() {
            if let Kind::Epoll(interests) = &mut other.kind {
                interests.retain(|interest| interest.fd != fd);
            }
        }
        Ok(file)
    }

    /// Every number in use.
    #[must_use]
    pub fn numbers(&self) -> Vec<i32> {
        let used = self.files.iter().enumerate().filter(|(_, file)| file.is_some());
        used.map(|(at, _)| at as i32 + FIRST).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> File {
        let kind = Kind::Epoll(Vec::new());
        File::new(kind, libc::AF_INET, false)
    }

    #[test]
    fn the_lowest_free_number_is_given() {
        let mut files = Files::default();
        assert_eq!((0..3).map(|_| files.open(file())).collect::<Result<Vec<_>, _>>(), Ok(vec![3, 4, 5]));
        assert!(files.take(4).is_ok());
        assert_eq!(files.open(file()), Ok(4));
        assert_eq!(files.take(7).err(), Some(Errno(libc::EBADF)));
        assert_eq!(files.of(2).err(), Some(Errno(libc::EBADF)));
        assert_eq!(files.numbers(), [3, 4, 5]);
    }
}
