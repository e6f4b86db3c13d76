//! [`DrainOnDrop`]: where what nobody took is dropped.

use async_channel::Receiver;

use crate::panics::drop_guarded;

/// A receiver whose messages are dropped with it, and not with the last sender on some other thread.
pub(crate) struct DrainOnDrop<T>(pub(crate) Receiver<T>);

impl<T> Drop for DrainOnDrop<T> {
    fn drop(&mut self) {
        self.0.close();
        while let Ok(message) = self.0.try_recv() {
            drop_guarded("a message that nobody took", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_in_a_drained_channel_goes_with_its_receiver() {
        let (sender, receiver) = async_channel::unbounded();
        let value = std::sync::Arc::new(());
        sender.try_send(value.clone()).expect("it is open");
        drop(DrainOnDrop(receiver));
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
        assert!(sender.try_send(value).is_err());
    }
}
