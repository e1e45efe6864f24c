//! The way to the node that a command asks: its control API, with what goes wrong there as [`Failure`]s.

use super::failure::Failure;
use super::settings::Place;
use crate::control::{Client, ControlError};

/// Connects to the node of the data directory.
///
/// # Errors
/// Exit status 3 when none answers there.
pub(super) async fn connect(place: &Place) -> Result<Client, Failure> {
    Ok(Client::connect(&place.data_dir).await?)
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match &error {
            ControlError::NoNode { data_dir } => Self::no_node(data_dir),
            _ => Self::of(&error),
        }
    }
}
