import 'reflect-metadata';

import { NestFactory } from '@nestjs/core';

import { EventPublisher } from './event-publisher.js';
import { EventsModule } from './events.module.js';

async function main(): Promise<void> {
  const app = await NestFactory.createApplicationContext(EventsModule, { logger: ['error', 'warn'] });
  const publisher = app.get(EventPublisher);
  const user = process.argv[2] ?? 'ana';

  const ids = await Promise.all([
    publisher.publish({ userId: user, eventType: 'user.created', eventData: { plan: 'free' } }),
    // An id of the application's own: publishing this order again stores nothing new.
    publisher.publish({
      id: `order-42-${user}`,
      userId: user,
      eventType: 'order.placed',
      eventData: { total: 1990 },
    }),
  ]);
  for (const id of ids) {
    console.log(`confirmed ${id}`);
  }
  await app.close();
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
