//! Conversions between the store's types and PostgreSQL's: numbers, texts, bytes and errors.

use std::{error::Error, fmt::Display, io};

use tokio_postgres::{Row, error::SqlState};

use crate::model::{absence::AwayReason, rows::StoreError};

/// Time of the server, ms since the Unix epoch.
pub(super) const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Failure of an operation within its transaction.
#[derive(Debug)]
pub(super) enum Failure {
    /// A rule of the store, or of this backend, said no.
    Rule(StoreError),
    /// PostgreSQL did, or the connection.
    Sql(tokio_postgres::Error),
}

/// Outcome of a step of an operation.
pub(super) type Outcome<T> = Result<T, Failure>;

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Rule(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Rule(error) => error,
            Failure::Sql(error) => store_error(&error),
        }
    }
}

impl Failure {
    /// Returns whether what was written or read is at fault, for example a row whose key is taken,
    /// rather than the server, the connection or others.
    pub(super) fn is_of_rows(&self) -> bool {
        match self {
            Self::Rule(error) => !error.is_away(),
            Self::Sql(error) => !self.is_conflict() && !store_error(error).is_away(),
        }
    }

    /// Returns whether the transaction was undone because of others that ran beside it: nothing was
    /// written, and it may be repeated at once.
    pub(super) fn is_conflict(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        error.code().is_some_and(|code| {
            *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED
        })
    }
}

/// Returns what an error says, with its code, for logs and `status`.
pub(super) fn words_of(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", said.message(), said.code().code());
    }
    // Each error of the chain names its part only.
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        source = inner.source();
    }
    words
}

/// Maps errors that pass by themselves to [`StoreError::Away`], all others to
/// [`StoreError::Broken`].
pub(super) fn store_error(error: &tokio_postgres::Error) -> StoreError {
    let why = words_of(error);
    let Some(code) = error.code() else {
        let is_io = error.source().is_some_and(<dyn Error>::is::<io::Error>);
        return if is_io || error.is_closed() {
            StoreError::away(AwayReason::Unreachable, why)
        } else {
            StoreError::Broken { why }
        };
    };
    match reason_of(code.code()) {
        Some(reason) => StoreError::away(reason, why),
        None => StoreError::Broken { why },
    }
}

/// Returns why the store is away when PostgreSQL reports this SQLSTATE; `None` if the operation
/// itself is at fault.
fn reason_of(code: &str) -> Option<AwayReason> {
    Some(match code {
        // Cancelled by `statement_timeout`, or ended by `idle_in_transaction_session_timeout` or
        // `transaction_timeout`.
        "57014" | "25P03" | "25P04" => AwayReason::NoAnswer,
        // `lock_timeout`, and conflicts that were repeated until the time was over.
        "55P03" | "40001" | "40P01" => AwayReason::Locked,
        "25006" => AwayReason::ReadOnly,
        "53100" => AwayReason::Full,
        // The database, the schema or a table is gone.
        "3D000" | "3F000" | "42P01" => AwayReason::Gone,
        // A statement that was sent behind one that failed: that one's answer says why.
        "25P02" => AwayReason::NoAnswer,
        // Shut down, crashed, starting, or of another state than the driver believes.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "40003" => AwayReason::Unreachable,
        _ if code.starts_with("08") => AwayReason::Unreachable,
        // Resources, files, and rights that an operator took away or may give again.
        _ if ["53", "58", "28"].iter().any(|class| code.starts_with(class)) => AwayReason::Failing,
        "42501" => AwayReason::Failing,
        _ => return None,
    })
}

/// Converts a number for PostgreSQL, which has no unsigned ones. One that does not fit becomes the
/// largest.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Typed reads of a row's columns. A value that was not written so is an error, never a guess.
pub(super) trait Columns {
    /// Reads a number that was written by [`int`].
    fn nat(&self, column: usize) -> Outcome<u64>;

    /// Reads a number of 32 bits.
    fn small(&self, column: usize) -> Outcome<u32>;

    /// Reads a text and parses it as its type.
    fn word<T, E>(&self, column: usize) -> Outcome<T>
    where
        T: TryFrom<String, Error = E>,
        E: Display;

    /// Reads bytes of a fixed length.
    fn bytes<const N: usize>(&self, column: usize) -> Outcome<[u8; N]>;

    /// Reads bytes of a fixed length, or NULL.
    fn bytes_or_null<const N: usize>(&self, column: usize) -> Outcome<Option<[u8; N]>>;

    /// Returns whether the column is NULL, whatever its type of whole number.
    fn is_null(&self, column: usize) -> Outcome<bool>;
}

impl Columns for Row {
    fn nat(&self, column: usize) -> Outcome<u64> {
        let value: i64 = self.try_get(column)?;
        u64::try_from(value).map_err(|_| malformed(column, &format_args!("{value} is negative")))
    }

    fn small(&self, column: usize) -> Outcome<u32> {
        let value: i64 = self.try_get(column)?;
        u32::try_from(value).map_err(|_| malformed(column, &format_args!("{value} is no 32 bits")))
    }

    fn word<T, E>(&self, column: usize) -> Outcome<T>
    where
        T: TryFrom<String, Error = E>,
        E: Display,
    {
        let text: String = self.try_get(column)?;
        T::try_from(text).map_err(|why| malformed(column, &why))
    }

    fn bytes<const N: usize>(&self, column: usize) -> Outcome<[u8; N]> {
        self.bytes_or_null(column)?.ok_or_else(|| malformed(column, &"it is NULL"))
    }

    fn bytes_or_null<const N: usize>(&self, column: usize) -> Outcome<Option<[u8; N]>> {
        let value: Option<&[u8]> = self.try_get(column)?;
        let fixed = |bytes: &[u8]| {
            let why = format!("{} bytes, not {N}", bytes.len());
            bytes.try_into().map_err(|_| malformed(column, &why))
        };
        value.map(fixed).transpose()
    }

    fn is_null(&self, column: usize) -> Outcome<bool> {
        let value: Option<i64> = self.try_get(column)?;
        Ok(value.is_none())
    }
}

/// Error for a stored value that does not parse as its type.
pub(super) fn malformed(column: usize, why: &dyn Display) -> Failure {
    Failure::Rule(StoreError::Broken { why: format!("column {column} of a row: {why}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_that_passes_is_away_and_a_fault_of_the_statement_is_not() {
        assert_eq!(reason_of("57P01"), Some(AwayReason::Unreachable));
        assert_eq!(reason_of("08006"), Some(AwayReason::Unreachable));
        assert_eq!(reason_of("53300"), Some(AwayReason::Failing));
        assert_eq!(reason_of("53100"), Some(AwayReason::Full));
        assert_eq!(reason_of("55P03"), Some(AwayReason::Locked));
        assert_eq!(reason_of("25006"), Some(AwayReason::ReadOnly));
        assert_eq!(reason_of("25P02"), Some(AwayReason::NoAnswer));
        assert_eq!(reason_of("25P04"), Some(AwayReason::NoAnswer));
        for own_fault in ["23505", "42703", "22P02", "XX001"] {
            assert_eq!(reason_of(own_fault), None, "{own_fault}");
        }
    }
}
