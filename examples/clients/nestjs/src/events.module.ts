import { Module } from '@nestjs/common';
import { ClientsModule, Transport } from '@nestjs/microservices';

import { ECLUSA, EventPublisher } from './event-publisher.js';

@Module({
  imports: [
    ClientsModule.register([
      {
        name: ECLUSA,
        transport: Transport.RMQ,
        options: {
          urls: [process.env.RABBITMQ_URL ?? 'amqp://guest:guest@127.0.0.1:5672'],
          queue: process.env.RABBITMQ_QUEUE ?? 'eclusa.events',
          // Eclusa declares the queue, with arguments of its own. A declaration with other arguments
          // fails with PRECONDITION_FAILED.
          noAssert: true,
          // Messages survive a restart of RabbitMQ.
          persistent: true,
        },
      },
    ]),
  ],
  providers: [EventPublisher],
  exports: [EventPublisher],
})
export class EventsModule {}
