// SPDX-License-Identifier: GPL-2.0

//! Refused commands: an errno for the caller, and the reason in words for `last_error`.

use super::text::Text;
use core::fmt;
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// Why a write was refused.
pub(crate) struct Refusal {
    /// What `write(2)` fails with.
    pub(crate) errno: Error,
    /// What `last_error` says.
    pub(crate) words: Text,
}

/// Result of a command.
pub(crate) type Outcome<T = ()> = core::result::Result<T, Refusal>;

impl Refusal {
    /// A refusal with its reason.
    pub(crate) fn new(errno: Error, words: fmt::Arguments<'_>) -> Refusal {
        Refusal {
            errno,
            words: Text::of(words),
        }
    }
}

/// Makes a [`Refusal`]: `refusal!(EBUSY, "del {}: ...", name)`.
macro_rules! refusal {
    ($errno:expr, $($arg:tt)*) => {
        $crate::glue::refusal::Refusal::new($errno, core::format_args!($($arg)*))
    };
}
pub(crate) use refusal;

/// The reason of the last refused write, shared by all files.
#[pin_data]
pub(crate) struct LastError {
    #[pin]
    words: Mutex<Text>,
}

impl LastError {
    /// No write has been refused yet.
    pub(crate) fn new() -> impl PinInit<LastError> {
        pin_init!(LastError {
            words <- new_mutex!(Text::new(), "LastError::words"),
        })
    }

    /// Records a refusal; gives its errno.
    pub(crate) fn record(&self, refusal: Refusal) -> Error {
        // The old words are freed after the lock is released.
        let _old = core::mem::replace(&mut *self.words.lock(), refusal.words);
        refusal.errno
    }

    /// Appends the reason as a line, if there is one.
    pub(crate) fn render(&self, text: &mut Text) {
        let words = self.words.lock();
        if let Ok(words) = core::str::from_utf8(words.as_bytes()) {
            if !words.is_empty() {
                text.put(format_args!("{words}\n"));
            }
        }
    }
}
