"""Delivery of Kommo's events: retries, and the disabling of a webhook that fails too often."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from local.simulators.kommo.state import Account, State

# Kommo's time limit for an answer, its waits between the deliveries of an event in minutes, and the number of failures
# after which it disables a webhook.
EVENT_TIMEOUT_S = 2.0
RETRY_AFTER_MINUTES = (5, 15, 15, 60)
MAX_BAD_ANSWERS = 100
EVENT_HEADERS = {"User-Agent": "amoCRM-Webhooks/3.0"}

NO_ANSWER = "no answer"

Form = list[tuple[str, str]]


class WebhookSender:
    """`retries` are the tasks of events that wait for another delivery."""

    def __init__(self, state: State, proxy_url: str) -> None:
        self.state = state
        self.proxy_url = proxy_url
        self.retries: set[asyncio.Task[None]] = set()

    async def send(self, account: Account, event: str, form: Form) -> list[str]:
        """Deliver an event to each webhook subscribed to it, and schedule the retries of failed deliveries."""
        hooks = [hook for hook in account.webhooks if event in hook["settings"] and not hook["disabled"]]
        answers = [await self.deliver(account, hook, form) for hook in hooks]
        for hook, answer in zip(hooks, answers, strict=True):
            if not is_success(answer):
                task = asyncio.create_task(self.retry(account, hook, form))
                self.retries.add(task)
                task.add_done_callback(self.retries.discard)
        return answers

    async def retry(self, account: Account, hook: dict[str, Any], form: Form) -> None:
        """Deliver again after 5 and 15 minutes and, while the answer is 5XX or missing, after 15 and 60 more."""
        for number, minutes in enumerate(RETRY_AFTER_MINUTES):
            await asyncio.sleep(minutes * self.state.limits.event_minute_s)
            answer = await self.deliver(account, hook, form)
            if is_success(answer) or (number and not answer.startswith("5") and answer != NO_ANSWER):
                return

    async def deliver(self, account: Account, hook: dict[str, Any], form: Form) -> str:
        """Deliver once and count the outcome. Returns the status of the answer, or `no answer`.

        The certificate is not verified: the proxy's authority is local.
        """
        url = hook["destination"]
        proxy = self.proxy_url if url.startswith("https://") else None
        try:
            async with (
                ClientSession(trust_env=False, timeout=ClientTimeout(total=EVENT_TIMEOUT_S)) as session,
                session.post(
                    url, data=form, headers=EVENT_HEADERS, proxy=proxy or None, ssl=False, allow_redirects=False
                ) as response,
            ):
                answer = str(response.status)
        except (ClientError, TimeoutError):
            answer = NO_ANSWER
        self.count_answer(account, hook, answer)
        return answer

    def count_answer(self, account: Account, hook: dict[str, Any], answer: str) -> None:
        """Count consecutive failures, and disable a webhook that has too many. Kommo counts the failures of two hours."""
        account.delivered[answer] += 1
        destination = hook["destination"]
        account.bad_answers[destination] = 0 if is_success(answer) else account.bad_answers[destination] + 1
        hook["disabled"] = account.bad_answers[destination] > MAX_BAD_ANSWERS

    def cancel_retries(self) -> None:
        for task in self.retries:
            task.cancel()
        self.retries = set()


def is_success(answer: str) -> bool:
    return answer.isdecimal() and 100 <= int(answer) <= 299
