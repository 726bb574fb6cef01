"""Lists of an account: all entities, or those that changed. https://developers.kommo.com/reference/contacts-list

`send` sends each request at the rate limit. Everything here raises `TokenRefused` on 401, `PlatformRefused` if the account is
not paid or its user lacks the permission, and `Retryable` on anything else that is not a list.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from portaria.core.callbacks import Record, Secret
from portaria.core.entities import Changes, Page
from portaria.core.errors import AnswerUnreadable, PlatformRefused, Rejected, TokenRefused
from portaria.core.http.messages import Request, Response
from portaria.platforms.kommo.tokens import UNREADABLE, not_now

Entity = dict[str, Any]
Send = Callable[[Request], Response]
Read = TypeVar("Read")

PAGE_SIZE = 250


class Place(NamedTuple):
    """Where the next page of changes begins. As text, it is its numbers separated by commas.

    Changes are read by time: the next page starts at the second in which the previous page ended, again as page 1. Page
    numbers are not reliable, because an entity that changes during the reading moves to the end of the list. Only a second that
    fills a whole page is read by page number, ordered by id. Each of its pages is followed by a check of where the previous
    page ended: while `last_id` is still there, no entity has been omitted in between.
    """

    second: int
    page: int = 0
    last_id: int = 0

    @classmethod
    def of(cls, cursor: str, since: int) -> Place:
        """Raises `Rejected` (`bad_cursor`) for a cursor that no version of this module has written."""
        try:
            return cls(*map(int, cursor.split(","))) if cursor else cls(since)
        except (ValueError, TypeError):
            raise Rejected("bad_cursor", "the stored page does not belong to Kommo: start again") from None

    def __str__(self) -> str:
        return ",".join(map(str, self))


class Account:
    """The lists of one account, read with one token."""

    def __init__(self, send: Send, account_host: str, access_token: Secret) -> None:
        self._send = send
        self._host = account_host
        self._token = access_token

    def page(self, name: str, page: int, after: str, complete: Callable[[list[Entity]], None] | None = None) -> Page:
        """Return a page of the list `name`. `page` is the place of its first entity in the list, counted from 1.

        `complete` adds what the list omits. The list is ordered by id, so a change moves no entity to an earlier place. A
        deletion does. Therefore each request includes the place of the last entity that was read: if all ids in the answer are
        above `after`, entities between them may have been omitted, and an earlier page is the next one.
        """

        def read() -> Page:
            start, limit = _window(page)
            entities, has_next = self.listed(name, f"page={start // limit + 1}&limit={limit}&order[id]=asc")
            last_id, ids = int(after or 0), [int(entity["id"]) for entity in entities]
            fresh = entities[ids.index(last_id) + 1 :] if last_id in ids else entities
            if complete:
                complete(fresh)
            next_page = start + limit + 1 if has_next else None
            if start and last_id and all(each > last_id for each in ids):
                next_page = max(1, start + 1 - PAGE_SIZE)
            return Page([_record(entity) for entity in fresh], next_page)

        return _checked(read)

    def changes(
        self, name: str, since: int, cursor: str, complete: Callable[[list[Entity]], None] | None = None
    ) -> Changes:
        """Return a page of changes since `since` (epoch seconds, inclusive). Some records are on two pages."""

        def read() -> Changes:
            place = Place.of(cursor, since)
            entities, following = self._by_id(name, place) if place.page else self._by_time(name, place)
            if complete:
                complete(entities)
            return Changes([_record(entity) for entity in entities], str(following) if following else None)

        return _checked(read)

    def listed(self, name: str, query: str) -> tuple[list[Entity], bool]:
        """Return a page of a list, and whether there is a next page."""
        headers = {"Authorization": f"Bearer {self._token.reveal()}", "Accept": "application/json"}
        url = f"https://{self._host}/api/v4/{name}?{query}"
        body = _read_list(self._send(Request("GET", url, headers, read_timeout_s=15)))
        return embedded(body, name), bool((body.get("_links") or {}).get("next"))

    def _by_time(self, name: str, place: Place) -> tuple[list[Entity], Place | None]:
        query = f"page=1&limit={PAGE_SIZE}&filter[updated_at][from]={place.second}&order[updated_at]=asc"
        entities, has_next = self.listed(name, query)
        if not has_next:
            return entities, None
        times = [int(entity.get("updated_at") or 0) for entity in entities]
        if min(times) == max(times):
            return entities, Place(times[0], 1)
        if max(times) <= place.second:
            raise AnswerUnreadable("Kommo's list is not of what changed since the time that was asked for")
        return entities, Place(max(times))

    def _by_id(self, name: str, place: Place) -> tuple[list[Entity], Place]:
        second = f"filter[updated_at][from]={place.second}&filter[updated_at][to]={place.second}&order[id]=asc"
        entities, has_next = self.listed(name, f"page={place.page}&limit={PAGE_SIZE}&{second}")
        if place.page > 1:
            before, _ = self.listed(name, f"page={(place.page - 1) * PAGE_SIZE}&limit=1&{second}")
            if [int(entity["id"]) for entity in before] != [place.last_id]:
                return entities, Place(place.second, 1)
        if has_next:
            return entities, Place(place.second, place.page + 1, max(int(entity["id"]) for entity in entities))
        return entities, Place(place.second + 1)


def _window(first: int) -> tuple[int, int]:
    """The index of the first entity, and the size, of the page with the most entities from the place `first` on.

    The page includes the entity before that place. Kommo's pages begin at multiples of their size.
    """
    index = max(0, first - 2)
    limit = max(range(1, PAGE_SIZE + 1), key=lambda size: size - index % size)
    return index - index % limit, limit


def embedded(entity: Entity, name: str) -> list[Entity]:
    return (entity.get("_embedded") or {}).get(name) or []


def _checked(read: Callable[[], Read]) -> Read:
    try:
        return read()
    except UNREADABLE as error:
        raise AnswerUnreadable(f"Kommo's list is not as documented: {type(error).__name__}") from None


def _read_list(response: Response) -> Entity:
    if response.status == 204:
        return {}
    if response.status == 401:
        raise TokenRefused("Kommo refused the access token")
    if response.status == 402:
        raise PlatformRefused("Kommo answered 402: the account is not paid", status=409)
    if response.status == 403 and "json" in response.headers.get("content-type", ""):
        # Not the rate block, which is HTML.
        detail = "Kommo answered 403: the user who connected the account lacks the permission to read these records"
        raise PlatformRefused(detail, status=409)
    if response.status != 200:
        raise not_now(response)
    try:
        body = json.loads(response.body)
    except UNREADABLE:
        body = None
    if not isinstance(body, dict):
        raise AnswerUnreadable("Kommo answered 200 without a list")
    return body


def _record(entity: Entity) -> Record:
    return Record(str(int(entity["id"])), int(entity.get("updated_at") or 0), entity)
