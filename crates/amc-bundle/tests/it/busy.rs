//! A run over very many calls, for what only shows with size.

use std::ops::Range;

use amc_core::kinds::{
    CallOutcome, Dialect, EnvironmentBuilt, Fields, Isolation, LlmRequest, LlmResponse, SessionChannel, SessionOutcome,
    SessionPurpose, Usage,
};
use amc_core::{AgentId, SessionId, Tier};
use amc_evidence::{Content, Draft, SessionPlan};

use crate::logs::Log;
use crate::world::{Aims, Empty, Plan, S, World, agent, checkpoint_cosigned, lease};

/// One long session of many calls, with a kibibyte of text in each question and each answer.
pub(crate) fn busy_session(log: &mut Log, agent: &AgentId, calls: Range<u32>) {
    let [a, b, c, d] = calls.start.to_be_bytes();
    let number = [200, a, b, c, d, 200, 200, 200, 200, 200];
    let id = SessionId::from_parts(u64::try_from(log.now_ns() / 1_000_000).expect("positive"), number);
    let tier = Tier::Observed;
    let plan = SessionPlan {
        purpose: SessionPurpose::Agent,
        channel: SessionChannel::Wrapper,
        isolation: Isolation::None,
        argv: vec!["agent".into()],
        artifact: Some(amc_crypto::sha256(b"the agent's program")),
        lease: Some(lease()),
    };
    let within = |fields: Fields| Draft::in_session(agent.clone(), id, tier, fields);
    log.append(Draft { content: Content::OpenSession(plan), ..within(EnvironmentBuilt::empty().into()) });
    for call in calls {
        let request_id = format!("req-{call:026}");
        let request = LlmRequest {
            request_id: request_id.clone(),
            client_request_id: None,
            provider: "demo".into(),
            dialect: Dialect::Openai,
            method: "POST".into(),
            path: "/v1/chat/completions".into(),
            lease: lease(),
            model: Some("demo-1".into()),
            stream: false,
            system_prompt_sha256: None,
            tools_offered: 0,
            config_version: 1,
        };
        let request_index = log.append_payload(within(request.into()), &kibibyte(2 * call));
        let response = LlmResponse {
            request_id,
            request_index,
            provider: "demo".into(),
            status: 200,
            outcome: CallOutcome::Complete,
            model: Some("demo-1".into()),
            usage: Some(Usage { input_tokens: 10, output_tokens: 20 }),
            tool_calls: 0,
            refusal: false,
            first_byte_us: 900,
            duration_us: 2_000,
            attempt: 1,
        };
        log.append_payload(within(response.into()), &kibibyte(2 * call + 1));
    }
    let seal =
        Draft { content: Content::SealSession(SessionOutcome::Sealed), ..within(EnvironmentBuilt::empty().into()) };
    log.append(seal);
    log.append(Draft {
        agent: Some(agent.clone()),
        content: Content::AgentHead,
        ..Draft::new(tier, EnvironmentBuilt::empty())
    });
}

/// A kibibyte of text that compresses about as well as prose does: words of a small vocabulary.
fn kibibyte(seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut text = Vec::with_capacity(1_040);
    while text.len() < 1_024 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(format!("word{} ", (state >> 33) % 4_096).as_bytes());
    }
    text.truncate(1_024);
    text
}

/// A workspace whose run covers so many calls, in sessions of at most so many.
pub(crate) fn busy(calls: u32, per_session: u32) -> World {
    let (keys, mut evidence, mut audit) = World::logs(Plan { sessions: 1, window_days: 1 });
    for first in (0..calls).step_by(usize::try_from(per_session).expect("small")) {
        busy_session(&mut evidence, &agent(), first..calls.min(first + per_session));
    }
    let cosigned = checkpoint_cosigned(&keys, &evidence);
    audit.at(evidence.now_ns() + S).append(Draft::new(Tier::Observed, cosigned));
    World::run(keys, evidence, audit, 14, Aims::default())
}
