//! Groups of batches that wait together on a real server: what each is answered, and what is recorded.

use futures_util::future::join_all;

use super::*;

const DEV: &str = "dev";

/// Store with the boards *lobby* and *dev*, and permissions for them.
struct Boards {
    env: Env,
    store: Store,
    lobby: Permission,
    dev: Permission,
}

impl Boards {
    async fn new(env: Env, server: &Server) -> Self {
        let store = opened(&env, server).await;
        let lobby = lobby(&store, 1).await;
        let dev = permission(&store, DEV).await;
        let create = Task::CreateBoard { board: DEV.parse().expect("a name") };
        let made = write_at(&store, &dev, 1, vec![create]).await;
        assert_eq!(made, Ok(vec![TaskResult::Done]));
        Self { env, store, lobby, dev }
    }

    /// Has batches written that wait for their turn together.
    async fn write_together(
        &self,
        server: &Server,
        batches: Vec<(&Permission, u64, Vec<Task>)>,
    ) -> Vec<Result<Vec<TaskResult>, StoreError>> {
        let turn = "BEGIN; SELECT at FROM chat.clock FOR UPDATE; SELECT pg_sleep(0.4); COMMIT";
        let blocked = server.sql(&self.env, turn);
        let writes = async {
            self.env.sleep(Duration::from_millis(150)).await;
            // The first one is alone in its transaction, and waits in it for the turn.
            let first = write_at(&self.store, &self.lobby, 1, vec![post(1)]);
            let others = async {
                self.env.sleep(Duration::from_millis(50)).await;
                join_all(
                    batches.into_iter().map(|(of, n, tasks)| write_at(&self.store, of, n, tasks)),
                )
                .await
            };
            let (first, others) = tokio::join!(first, others);
            assert!(matches!(first.as_deref(), Ok([TaskResult::Committed { .. }])), "{first:?}");
            others
        };
        tokio::join!(blocked, writes).1
    }
}

async fn permission(store: &Store, board: &str) -> Permission {
    acquired(store, Resource::Board(board.parse().expect("a name")), 1).await
}

fn post_on(board: &str, n: u64) -> Task {
    let Task::Post { post, .. } = post(n) else { unreachable!("it is a post") };
    Task::Post { board: board.parse().expect("a name"), post }
}

/// Places that a batch got: of new posts, and of those that were there.
fn places(answer: &Result<Vec<TaskResult>, StoreError>) -> Vec<(char, u64)> {
    let results = answer.as_ref().unwrap_or_else(|error| panic!("{error}"));
    let place = |result: &TaskResult| match result {
        TaskResult::Committed { seq, .. } => ('+', seq.0),
        TaskResult::Duplicate { seq, .. } => ('=', seq.0),
        TaskResult::Conflict => ('x', 0),
        TaskResult::Refused(_) => ('-', 0),
        other => panic!("{other:?}"),
    };
    results.iter().map(place).collect()
}

/// Number of batches in the record, and the greatest number in it.
async fn recorded(env: &Env, server: &Server) -> (u64, u64) {
    let count = "SELECT count(*) FROM chat.writes WHERE kind = 'write'";
    let last = "SELECT max(number) FROM chat.writes";
    let number = async |sql| server.sql(env, sql).await[0].parse().expect("a number");
    (number(count).await, number(last).await)
}

#[tokio::test]
async fn repetitions_and_unknown_boards_in_a_group_leave_the_other_batches_their_answers() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let boards = Boards::new(env.clone(), &server).await;
    let nowhere = permission(&boards.store, "nowhere").await;
    let mut next = boards.lobby.clone();
    next.after = Some(2);
    let before = recorded(&env, &server).await;
    let answers = boards
        .write_together(
            &server,
            vec![
                (&boards.lobby, 2, vec![post(2), post(3)]),
                (&boards.dev, 2, vec![post_on(DEV, 4)]),
                (&next, 3, vec![post(5)]),
                // An id of this board, one of another board, and a new one.
                (&boards.dev, 3, vec![post_on(DEV, 4), post_on(DEV, 2), post_on(DEV, 6)]),
                (&nowhere, 1, vec![post_on("nowhere", 7)]),
            ],
        )
        .await;
    let told: Vec<_> = answers.iter().map(places).collect();
    assert_eq!(told[0], [('+', 2), ('+', 3)]);
    assert_eq!(told[1], [('+', 1)]);
    assert_eq!(told[2], [('+', 4)]);
    assert_eq!(told[3], [('=', 1), ('x', 0), ('+', 2)]);
    assert_eq!(told[4], [('-', 0)]);
    let texts: Vec<_> = seqs(&boards.store).await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["post 1", "post 2", "post 3", "post 5"]);
    let after = recorded(&env, &server).await;
    assert_eq!(after.0 - before.0, 6, "each batch once");
    assert_eq!(after.1 - before.1, 6, "without a hole");
}

#[tokio::test]
async fn batch_whose_rows_are_refused_falls_alone_in_its_group() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let boards = Boards::new(env.clone(), &server).await;
    server
        .sql(
            &env,
            "CREATE FUNCTION chat.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.board = (SELECT board FROM chat.boards WHERE name = 'dev') THEN
                     RAISE EXCEPTION 'not here';
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON chat.posts
                 FOR EACH ROW EXECUTE FUNCTION chat.refuse()",
        )
        .await;
    let mut next = boards.lobby.clone();
    next.after = Some(2);
    let answers = boards
        .write_together(
            &server,
            vec![
                (&boards.lobby, 2, vec![post(2)]),
                (&boards.dev, 2, vec![post_on(DEV, 3)]),
                (&next, 3, vec![post(4)]),
            ],
        )
        .await;
    assert_eq!(places(&answers[0]), [('+', 2)]);
    assert!(matches!(&answers[1], Err(StoreError::Broken { .. })), "{:?}", answers[1]);
    assert_eq!(places(&answers[2]), [('+', 3)]);
    assert_eq!(seqs(&boards.store).await.len(), 3);
}

#[tokio::test]
async fn repetitions_on_many_boards_are_written_in_several_transactions() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let boards = Boards::new(env.clone(), &server).await;
    let create = "INSERT INTO chat.boards (name, last_seq, last_posted_at)
                  SELECT 'b' || n, 0, 0 FROM generate_series(0, 59) n";
    server.sql(&env, create).await;
    let names: Vec<_> = (0..60).map(|n| format!("b{n}")).collect();
    let mut permissions = Vec::new();
    for (id, name) in (100..).zip(&names) {
        let permission = permission(&boards.store, name).await;
        let posted = write_at(&boards.store, &permission, 1, vec![post_on(name, id)]).await;
        assert_eq!(places(&posted), [('+', 1)]);
        permissions.push(permission);
    }
    let before = recorded(&env, &server).await;
    // Half of them come again; of the others the ids are new.
    let batch = |(nth, of): (u64, _)| {
        let id = if nth < 30 { 100 + nth } else { 200 + nth };
        (of, 2, vec![post_on(&format!("b{nth}"), id)])
    };
    let answers =
        boards.write_together(&server, (0..).zip(&permissions).map(batch).collect()).await;
    for (nth, answer) in answers.iter().enumerate() {
        let place = if nth < 30 { ('=', 1) } else { ('+', 2) };
        assert_eq!(places(answer), [place], "board {nth}");
    }
    let after = recorded(&env, &server).await;
    assert_eq!((after.0 - before.0, after.1 - before.1), (61, 61), "each batch once");
    let transactions = "SELECT count(DISTINCT xmin::text) FROM chat.writes
                        WHERE resource LIKE 'board:b%' AND n = 2";
    let count: u64 = server.sql(&env, transactions).await[0].parse().expect("a number");
    assert!(count >= 3, "60 batches that may take 8 statements each in {count} transactions");
}

#[tokio::test]
async fn failed_append_is_ended_once() {
    let env = real_env();
    let Some(server) = Server::start(&env, &[]).await else { return };
    let store = opened(&env, &server).await;
    let permission = lobby(&store, 1).await;
    for (n, place) in [(1, ('+', 1)), (2, ('=', 1))] {
        assert_eq!(places(&write_at(&store, &permission, n, vec![post(1)]).await), [place]);
    }
    // A read that fails is in no transaction.
    server.sql(&env, "ALTER TABLE chat.dead_letters RENAME TO elsewhere").await;
    store.dead_letters(10).await.expect_err("its table is gone");
    server.sql(&env, "ALTER TABLE chat.elsewhere RENAME TO dead_letters").await;
    assert_eq!(places(&write(&store, &permission, 3).await), [('+', 2)]);
    let log = std::fs::read_to_string(server.dir().join("log")).expect("a log");
    for failed in ["duplicate key", "does not exist"] {
        assert!(log.contains(failed), "nothing failed: {log}");
    }
    assert!(!log.contains("no transaction in progress"), "{log}");
}
