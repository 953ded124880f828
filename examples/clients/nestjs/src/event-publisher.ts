import { randomUUID } from 'node:crypto';

import { Inject, Injectable } from '@nestjs/common';
import { ClientProxy } from '@nestjs/microservices';
import { defer, lastValueFrom, retry, timeout, timer } from 'rxjs';

export const ECLUSA = Symbol('ECLUSA');

export interface UserEvent {
  /** Assigned when absent. A UUID, or any string that is unique for this producer. */
  id?: string;
  userId: string;
  /** The pattern of the message is the event type. */
  eventType: string;
  eventData?: Record<string, unknown>;
  sessionId?: string;
  /** RFC 3339 with an offset. */
  timestamp?: string;
}

@Injectable()
export class EventPublisher {
  constructor(@Inject(ECLUSA) private readonly client: ClientProxy) {}

  /**
   * Resolves with the event's id once RabbitMQ has confirmed the message.
   *
   * The id is assigned before the first attempt, so a repeated message is a duplicate for Eclusa.
   */
  async publish({ eventType, ...event }: UserEvent): Promise<string> {
    const id = event.id ?? randomUUID();
    // `emit` sends as soon as it is called, and again only if it is called again: hence `defer`.
    const sent = defer(() => this.client.emit(eventType, { ...event, id })).pipe(
      timeout(10_000),
      retry({ count: 10, delay: (_error, attempt) => timer(Math.min(200 * 2 ** attempt, 10_000)) }),
    );
    await lastValueFrom(sent, { defaultValue: undefined });
    return id;
  }
}
