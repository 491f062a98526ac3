//! Between the store's words and SQLite's: numbers, texts and errors.

use std::fmt::Display;

use rusqlite::{ErrorCode, Row, types::Type};

use crate::model::rows::StoreError;

/// A number for SQLite, which knows no unsigned ones. What does not fit becomes the largest.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// How rows are read back. A value that is not what was written is an error, never a guess.
pub(super) trait Columns {
    /// A number that was written by [`int`].
    fn nat(&self, column: usize) -> rusqlite::Result<u64>;

    /// A small number.
    fn small(&self, column: usize) -> rusqlite::Result<u32>;

    /// A text that is some type's one textual form.
    fn word<T, E>(&self, column: usize) -> rusqlite::Result<T>
    where
        T: TryFrom<String, Error = E>,
        E: Display;

    /// Fixed bytes, or nothing.
    fn bytes_or_null<const N: usize>(&self, column: usize) -> rusqlite::Result<Option<[u8; N]>>;
}

impl Columns for Row<'_> {
    fn nat(&self, column: usize) -> rusqlite::Result<u64> {
        let value: i64 = self.get(column)?;
        u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
    }

    fn small(&self, column: usize) -> rusqlite::Result<u32> {
        let value: i64 = self.get(column)?;
        u32::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
    }

    fn word<T, E>(&self, column: usize) -> rusqlite::Result<T>
    where
        T: TryFrom<String, Error = E>,
        E: Display,
    {
        let text: String = self.get(column)?;
        T::try_from(text).map_err(|why| malformed(column, &why))
    }

    fn bytes_or_null<const N: usize>(&self, column: usize) -> rusqlite::Result<Option<[u8; N]>> {
        self.get(column)
    }
}

/// A stored value that does not read as its type.
pub(super) fn malformed(column: usize, why: &dyn Display) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why.to_string().into())
}

/// What passes by itself is [`StoreError::Away`], all else is [`StoreError::Broken`].
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let passing = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
                    | ErrorCode::OutOfMemory
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::FileLockingProtocolFailed
            )
        );
        let why = error.to_string();
        if passing { Self::Away { why } } else { Self::Broken { why } }
    }
}
