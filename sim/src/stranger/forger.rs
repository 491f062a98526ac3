//! Forger: an impostor's end of a handshake. It says what no node says, so it is made of the parts of
//! the product's dialling end.
//!
//! 1. It knows all of a member but its private key, and all of a join token but its bearer.
//! 2. It says well-formed messages that fit what was said before: whoever refuses it does so for the
//!    key, the guard or the bearer that it lacks.

use std::{fmt, sync::Arc};

use chatchat::{
    crypto::{
        admission::{Guard, GuardId},
        handshake::{RELEASE, SUITE_RSA_AES, VERSIONS},
        keys::{Identity, IdentityKey, KeyBounds, WrapPair},
        record::{HEADER_LEN, Opener, RecordKind, Side, body_len, link},
        secret::{Secret, labelled_hash},
    },
    env::BoxStream,
    model::ids::{Domain, KeyEpoch, NodeId, Role},
    wire::{
        PLAIN_LEN_MAX, codec,
        plain::{read_frame, write_frame},
    },
};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SIGN_REPLY: &str = "chatchat/v1/handshake/reply";
const SIGN_AUTH: &str = "chatchat/v1/handshake/auth";
const WRAP: &str = "chatchat/v1/handshake/wrap";
const KEYS: &str = "chatchat/v1/handshake/keys";

/// Kind of pretence of an impostor, by the parts that it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Guise {
    /// A member's guard and public key, and a signature of the impostor's.
    Signature,
    /// A member's guard, and the impostor's own key with its signature.
    Key,
    /// A member's public key, and a guard that is made up.
    Guard,
    /// A join token's guard, the impostor's own key, and a bearer that is made up.
    Bearer,
}

impl Guise {
    pub(crate) const ALL: [Self; 4] = [Self::Signature, Self::Key, Self::Guard, Self::Bearer];
}

impl fmt::Display for Guise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => "its guard, its public key and another's signature",
            Self::Key => "its guard and another key",
            Self::Guard => "its public key and a guard that is made up",
            Self::Bearer => "a join token's guard and a bearer that is made up",
        })
    }
}

/// Knowledge that others can have of a member: all but its private key.
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    pub(crate) guard: Guard,
    /// Public key of its identity, SPKI DER.
    pub(crate) spki: Vec<u8>,
}

/// Face that an impostor shows in one handshake.
pub(crate) struct Face {
    /// Guard that the Hello names, with the secret that proves it.
    guard: (GuardId, Guard),
    role: Role,
    name: String,
    /// Public key that the Auth shows, SPKI DER.
    spki: Vec<u8>,
    bearer: Option<[u8; 32]>,
}

/// Answer of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// None to the Hello.
    Unheard,
    /// None to the Auth, or a Rejection.
    Refused,
    /// A Welcome.
    Welcome,
}

/// Impostor's end of its handshakes.
pub(crate) struct Forger {
    /// Identity that is no member's.
    pub(crate) own: Identity,
    pub(crate) handshake: Arc<WrapPair>,
    pub(crate) bounds: KeyBounds,
    pub(crate) cluster: [u8; 16],
    pub(crate) rng: ChaCha20Rng,
}

impl Forger {
    /// Returns the face of a guise, of what is known of a member and of a join token. `None` where that
    /// takes a token and there is none.
    pub(crate) fn face(
        &mut self,
        guise: Guise,
        member: Known,
        token: Option<(GuardId, Guard)>,
    ) -> Option<Face> {
        let Known { name, node, role, guard, spki } = member;
        let of_member =
            Face { guard: (GuardId::Node(node), guard), role, name, spki, bearer: None };
        let own = self.own.spki().to_vec();
        Some(match guise {
            Guise::Signature => of_member,
            Guise::Key => Face { spki: own, ..of_member },
            Guise::Guard => {
                let made_up = Guard::random(&mut self.rng);
                Face { guard: (GuardId::Node(node), made_up), ..of_member }
            }
            Guise::Bearer => Face {
                guard: token?,
                role: Role::Worker,
                spki: own,
                bearer: Some(*Secret::random(&mut self.rng).expose()),
                ..of_member
            },
        })
    }

    /// Asks a master to take this face in. `None` if the master was not heard out.
    pub(crate) async fn ask(&mut self, stream: &mut BoxStream, face: &Face) -> Option<Answer> {
        let hello = self.hello(face)?;
        write_frame(stream, &hello, PLAIN_LEN_MAX).await.ok()?;
        let Ok(reply) = read_frame(stream, PLAIN_LEN_MAX).await else {
            return Some(Answer::Unheard);
        };
        let (auth, mut opener) = self.auth(face, &hello, &reply)?;
        stream.write_all(&auth).await.ok()?;
        stream.flush().await.ok()?;

        let mut header = [0; HEADER_LEN];
        if stream.read_exact(&mut header).await.is_err() {
            return Some(Answer::Refused);
        }
        let mut body = vec![0; body_len(header).ok()?];
        stream.read_exact(&mut body).await.ok()?;
        Some(match opener.open(header, &mut body).ok()? {
            RecordKind::Data => Answer::Welcome,
            RecordKind::Close | RecordKind::Switch => Answer::Refused,
        })
    }

    /// Returns the Hello: its fields in the order of the product's, then its proof.
    fn hello(&mut self, face: &Face) -> Option<Vec<u8>> {
        let mut nonce = [0_u8; 32];
        self.rng.fill_bytes(&mut nonce);
        let (id, guard) = &face.guard;
        let (newest, suites): (u16, &[u16]) = (VERSIONS.1, &[SUITE_RSA_AES]);
        let cluster = Some(self.cluster);
        let hello = (newest, newest, suites, cluster, nonce, self.handshake.spki(), id);
        let body = codec::encode(&hello).ok()?;
        let proof = guard.prove(&body).to_vec();
        codec::encode(&(body, proof)).ok()
    }

    /// Returns the sealed Auth that answers a Reply, and the opener of the answer to it.
    fn auth(&mut self, face: &Face, hello: &[u8], reply: &[u8]) -> Option<(Vec<u8>, Opener)> {
        let (said, proof) = codec::decode::<(Vec<u8>, Vec<u8>)>(reply).ok()?;
        let (head, wrapped) = codec::decode::<(Vec<u8>, Vec<u8>)>(&said).ok()?;
        let head_of = codec::decode::<(u16, u16, [u8; 32], [u8; 16], Vec<u8>)>;
        let (.., spki) = head_of(&head).ok()?;
        let master = IdentityKey::from_spki(&spki, self.bounds).ok()?;
        let signed = master.verify(SIGN_REPLY, &[hello, &said], &proof).ok()?;
        let unwrapped =
            self.handshake.unwrap(signed, &mut self.rng, WRAP, &[hello, &head], &wrapped).ok()?;
        let secret = Secret::extract(&labelled_hash(KEYS, &[hello, reply]), &unwrapped);
        let (mut sealer, opener) = link(&secret, Side::Dialer);

        let no_epoch = None::<(Domain, KeyEpoch)>;
        let auth = (&face.spki, face.role, &face.name, face.bearer, no_epoch, false);
        // What the sender says of itself follows from the second version of links on.
        let body = codec::encode(&(auth, (RELEASE,))).ok()?;
        let proof = self.own.sign(&mut self.rng, SIGN_AUTH, &[hello, reply, &body]).ok()?;
        let plain = codec::encode(&(body, proof)).ok()?;
        let mut record = Vec::new();
        sealer.seal(RecordKind::Data, &plain, &mut record).ok()?;
        Some((record, opener))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::ready, time::Duration};

    use chatchat::{
        comm::{
            connection_limit::ConnectionLimit,
            handshake::{
                Acceptor, AcceptorParams, AdmissionGrant, AdmissionPolicy, AdmissionRequest,
                HandshakeError, HandshakeFault, Refusal, Rejection, accept,
            },
            key_source::KeyKind,
        },
        crypto::{
            admission::{JoinSecret, bearer_matches},
            keys::{KeyError, KeyPair},
        },
        env::{BoxFuture, Env},
        model::{ids::Incarnation, message::Welcome},
    };
    use dst_world::{Seed, Setup, simulate};

    use super::*;
    use crate::keys::KeyPool;

    /// Numbers of keys: of the master, of the member, and of an impostor.
    const MASTER: usize = 0;
    const MEMBER: usize = 1;
    const IMPOSTOR: usize = 2;

    /// Policy of a master that admits whoever shows a guard of its own, or a token's bearer.
    struct Policy {
        domain: Domain,
        guards: Vec<(GuardId, Guard)>,
        bearer_sha256: [u8; 32],
    }

    impl AdmissionPolicy for Policy {
        fn guard(&self, id: GuardId) -> BoxFuture<'_, Option<Guard>> {
            let known = self.guards.iter().find(|(of, _)| *of == id);
            Box::pin(ready(known.map(|(_, guard)| guard.clone())))
        }

        fn is_denied(&self, _: NodeId) -> bool {
            false
        }

        fn admit(&self, asks: AdmissionRequest) -> BoxFuture<'_, Result<AdmissionGrant, Refusal>> {
            let is_good = |bearer: Secret| bearer_matches(&bearer, &self.bearer_sha256);
            let welcome = Welcome { domain: self.domain, directory: Vec::new() };
            let grant = AdmissionGrant { welcome, guard: None, keys: None, login: None };
            Box::pin(ready(match asks.bearer.is_none_or(is_good) {
                true => Ok(grant),
                false => Err(Rejection::Token.into()),
            }))
        }
    }

    async fn pair(env: &Env, number: usize, kind: KeyKind) -> KeyPair {
        let source = KeyPool::new(Seed(1), 3, 0).source(number);
        source.generate(env, kind, 0).await.expect("from the pool")
    }

    /// Returns the answer to a guise of an impostor with the key of this number, and the master's error.
    fn asked(guise: Guise, own: usize) -> (Option<Answer>, HandshakeError) {
        simulate(Setup::new(1), async move |world| {
            let host = world.add_host("node");
            world.run(host, move |env| asked_on(env, guise, own)).await
        })
    }

    async fn asked_on(env: Env, guise: Guise, own: usize) -> (Option<Answer>, HandshakeError) {
        let limit = Duration::from_secs(5);
        let master = Identity::new(pair(&env, MASTER, KeyKind::Identity).await);
        let member = Identity::new(pair(&env, MEMBER, KeyKind::Identity).await);
        let mut rng = env.rng("test");
        let token = JoinSecret::random(&mut rng, &master.fingerprint());
        let of_token = (GuardId::Token(token.id), token.guard());
        let guard = Guard::random(&mut rng);
        let bounds = KeyPool::new(Seed(1), 3, 0).source(MASTER).bounds();
        let policy = Policy {
            domain: Domain { master: master.node(), incarnation: Incarnation(1) },
            guards: vec![(GuardId::Node(member.node()), guard.clone()), of_token.clone()],
            bearer_sha256: token.bearer_sha256(),
        };
        let params = AcceptorParams {
            identity: Arc::new(master),
            name: "master".to_owned(),
            cluster: [5; 16],
            bounds,
            version_max: VERSIONS.1,
        };
        let acceptor = Acceptor::new(params, limit);
        let mut forger = Forger {
            own: Identity::new(pair(&env, own, KeyKind::Identity).await),
            handshake: Arc::new(WrapPair::new(pair(&env, own, KeyKind::Handshake).await)),
            bounds,
            cluster: [5; 16],
            rng,
        };
        let known = Known {
            name: "member".to_owned(),
            node: member.node(),
            role: Role::Worker,
            guard,
            spki: member.spki().to_vec(),
        };
        let face = forger.face(guise, known, Some(of_token)).expect("there is a token");

        let (near, far) = tokio::io::duplex(64 * 1024);
        let permit = ConnectionLimit::new(1, 1).take("impostor:1").expect("it is free");
        let asks = async move {
            let mut far: BoxStream = Box::new(far);
            forger.ask(&mut far, &face).await
        };
        let accepts = accept(&env, Box::new(near), &policy, &acceptor, permit);
        let (answer, accepted) = tokio::join!(asks, accepts);
        // An impostor says no more after its Auth.
        (answer, accepted.expect_err("no Ready"))
    }

    #[test]
    fn member_itself_is_welcomed() {
        let (answer, end) = asked(Guise::Signature, MEMBER);
        assert_eq!(answer, Some(Answer::Welcome), "{end}");
    }

    #[test]
    fn another_key_is_refused_for_its_signature_or_for_the_guard_that_is_not_its_own() {
        let (answer, end) = asked(Guise::Signature, IMPOSTOR);
        assert_eq!(answer, Some(Answer::Refused));
        let bad = HandshakeFault::Key { what: "Auth", why: KeyError::BadSignature };
        assert!(matches!(&end, HandshakeError::Fault(fault) if *fault == bad), "{end}");
        let (answer, end) = asked(Guise::Key, IMPOSTOR);
        assert_eq!(answer, Some(Answer::Refused));
        assert!(matches!(end, HandshakeError::Fault(HandshakeFault::GuardOfAnother)), "{end}");
    }

    #[test]
    fn guard_that_is_made_up_is_unheard() {
        let (answer, end) = asked(Guise::Guard, MEMBER);
        assert_eq!(answer, Some(Answer::Unheard));
        assert!(matches!(end, HandshakeError::Fault(HandshakeFault::BadGuard)), "{end}");
    }

    #[test]
    fn bearer_that_is_made_up_is_refused() {
        let (answer, end) = asked(Guise::Bearer, IMPOSTOR);
        assert_eq!(answer, Some(Answer::Refused));
        assert!(matches!(end, HandshakeError::NotAdmitted { .. }), "{end}");
    }
}
