//! Command `post`: sends a post until it is in its board, or tells which disks hold it.

use std::time::Duration;

use super::{CtlError, say, session::Session};
use crate::{
    env::TimedOut,
    model::ids::{BoardName, PostId, PostText},
};

/// Time for which a post is tried: its coordinator may die meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes on a board, and says where the post is.
pub(super) async fn post(
    session: &Session,
    text: &str,
    board: &BoardName,
    id: Option<PostId>,
) -> Result<(), CtlError> {
    let text: PostText = text.parse().map_err(|why| CtlError::Usage(format!("{why}")))?;
    let id = id.unwrap_or_else(|| session.client.new_post_id());
    say(&send(session, text, board, id, PATIENCE).await?)
}

/// Sends a post for as long as this. Returns its place, or the disks that hold it.
async fn send(
    session: &Session,
    text: PostText,
    board: &BoardName,
    id: PostId,
    patience: Duration,
) -> Result<String, CtlError> {
    let Session { client, held } = session;
    match client.env().timeout(patience, client.send(board, id, text)).await {
        Ok(posted) => {
            posted.map(|post| format!("{} {}\n", post.board, post.seq)).map_err(From::from)
        }
        Err(TimedOut) => match held.copies() {
            Some(1) => Ok(format!("held on 1 disk until the store is back, id {id}\n")),
            Some(copies) => {
                Ok(format!("held on {copies} disks until the store is back, id {id}\n"))
            }
            None => Err(CtlError::Failed(format!(
                "no outcome within {patience:?}; the post may still appear. The same command \
                 with --id {id} sends it again, and never twice"
            ))),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        client::{ChatClient, Limits, MasterList},
        env::{Env, real::RealWorld},
        programs::ctl::held::HeldWatch,
        testing::scripted_master::{Act, Asked, Scripted},
    };

    const ID: PostId = PostId([0x11; 16]);
    const AUTHOR: &str = r#"{"id":"0102030405060708090a0b0c0d0e0f10","name":"Ann"}"#;

    /// Sends a post for this long to a master that answers so.
    async fn sent(
        patience: Duration,
        act: impl Fn(usize, &Asked) -> Act + Send + 'static,
    ) -> (Result<String, String>, bool) {
        let env = Env::new(RealWorld::temporary().expect("a directory"));
        let master = Scripted::start(&env, act).await;
        let masters = MasterList::new(std::slice::from_ref(&master.url), 0).expect("one");
        let (held, token) = (Arc::new(HeldWatch::default()), Some("secret".to_owned()));
        let client = ChatClient::new(&env, masters, token, Limits::default(), held.clone());
        let session = Session { client, held };
        let text = "hello".parse().expect("a text");
        let said = send(&session, text, &BoardName::lobby(), ID, patience).await;
        let is_told = session.held.is_told();
        (said.map_err(|why| why.to_string()), is_told)
    }

    fn held_on(copies: u32) -> Act {
        Act::Answer(202, "", format!(r#"{{"state":"pending","id":"{ID}","copies":{copies}}}"#))
    }

    #[tokio::test]
    async fn post_that_is_held_when_patience_ends_is_told_with_its_disks_and_its_id() {
        for (copies, disks) in [(2, "2 disks"), (1, "1 disk")] {
            let (said, is_told) = sent(Duration::from_secs(1), move |_, _| held_on(copies)).await;
            let want = format!("held on {disks} until the store is back, id {ID}\n");
            assert_eq!((said, is_told), (Ok(want), true));
        }
    }

    #[tokio::test]
    async fn post_that_was_held_is_told_with_its_place_once_it_is_written() {
        let posted = format!(
            r#"{{"id":"{ID}","board":"lobby","seq":7,"author":{AUTHOR},"text":"hello","posted_at":5}}"#
        );
        let (said, is_told) = sent(Duration::from_secs(30), move |nth, _| match nth {
            0 => held_on(2),
            _ => Act::Answer(200, "", posted.clone()),
        })
        .await;
        assert_eq!((said.as_deref(), is_told), (Ok("lobby 7\n"), true));
    }

    #[tokio::test]
    async fn post_that_no_disk_is_known_to_hold_has_no_outcome() {
        let (said, is_told) = sent(Duration::from_millis(300), |_, _| Act::Drop).await;
        let why = said.expect_err("no outcome");
        assert!(why.contains("no outcome") && why.contains(&ID.to_string()), "{why}");
        assert!(!is_told);
    }
}
