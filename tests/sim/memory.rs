//! Frames that lie one after the other, which is how every device of the harness has them.

/// [`stack::device::Memory`] of a device with the bytes of its frames in `memory`, whose `place` says where a frame is, if there is one of
/// that number.
#[macro_export]
macro_rules! frames_in_memory {
    ($device:ty) => {
        impl stack::device::Memory for $device {
            fn bytes(&self, frame: stack::device::FrameIndex) -> Option<&[u8]> {
                self.memory.get(self.place(frame)?)
            }

            fn bytes_mut(&mut self, frame: stack::device::FrameIndex) -> Option<&mut [u8]> {
                let place = self.place(frame)?;
                self.memory.get_mut(place)
            }

            fn pair(
                &mut self,
                from: stack::device::FrameIndex,
                to: stack::device::FrameIndex,
            ) -> Option<(&[u8], &mut [u8])> {
                let (from, to) = (self.place(from)?, self.place(to)?);
                let [from, to] = self.memory.get_disjoint_mut([from, to]).ok()?;
                Some((from, to))
            }
        }
    };
}
